"""A result can be written to netCDF, and what is read from there has the same tables and summaries."""

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from plain import LONGER, loaded

import hydrascope as hs
from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import as_json
from hydrascope.runs.rounding import precision
from hydrascope.storage.reader import read_attributes


@pytest.mark.parametrize("kind", ["in memory", "stored", "mediation", "estimate"])
def test_it_comes_back_from_netcdf(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydrascope.runs.start.precision", precision)
    model, out = loaded("gpt2"), tmp_path / "run.zarr"
    options = {"metrics": ["kl"], "ablate": "layers"}
    if kind == "in memory":
        results = hs.sweep(model, LONGER, hs.Zero(), **options)
    elif kind == "stored":
        results = hs.sweep(model, LONGER, hs.Zero(), out=out, **options)
    elif kind == "mediation":
        results = hs.sweep(model, LONGER, hs.Zero(), ablate=hs.Mediation("attn.0", "layers"))
    else:
        results = hs.analyses.attribution.atp(model, LONGER, hs.Zero())
    results.to_netcdf(tmp_path / "run.nc")
    again = xr.load_dataset(tmp_path / "run.nc")
    assert again.attrs.keys() == results.attrs.keys()
    for name, value in results.attrs.items():
        assert again.attrs[name] == value or name in ("seconds", "torch"), name
    xr.testing.assert_equal(again.drop_attrs(), results.load().drop_attrs())
    if kind != "estimate":
        pd.testing.assert_frame_equal(hs.tidy(again), hs.tidy(results), check_dtype=False)
        few = Bootstrap(resamples=20)
        assert as_json(summarise(again, few)) == as_json(summarise(results, few))
        assert json.loads(again.attrs["metrics"]) == (["kl"] if kind != "mediation" else [])
        assert json.loads(again.attrs["precision"])["prompts"] == 1
        assert results.attrs["precision"]["prompts"] == copy.deepcopy(results).attrs["precision"]["prompts"] == 1
        assert dict(results.attrs["routines"]) == json.loads(again.attrs["routines"])


def test_a_stored_result_keeps_mappings_on_disk_and_goes_on(tmp_path: Path) -> None:
    """Results from before, which have them in their attributes, are read and resumed alike."""
    model, out = loaded("gpt2"), tmp_path / "run.zarr"
    whole = hs.sweep(model, LONGER, hs.Zero(), ablate="attn", out=out)
    attributes = read_attributes(out)
    assert isinstance(attributes["routines"], dict)
    assert json.loads(whole.attrs["routines"]) == attributes["routines"]
    again = hs.sweep(model, LONGER, hs.Zero(), ablate="attn", out=out, resume=True)
    xr.testing.assert_identical(again, whole)
