"""The tidy table as a file."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope.cli.app import app
from hydrascope.cli.export import write_export
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "a.zarr"
    hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(8), hs.Zero(), out=path, metrics="kl")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_what_is_written_is_the_table(tmp_path, result, name):
    out = tmp_path / name
    told = CliRunner().invoke(app, ["export", str(result), "--out", str(out)], catch_exceptions=False)
    assert told.stdout == f"96 rows: {out}\n"
    pd.testing.assert_frame_equal(pd.read_csv(out), hs.tidy(hs.open_results(result)), check_dtype=False)


def test_json_holds_the_same_table(tmp_path, result):
    out = tmp_path / "a.json"
    CliRunner().invoke(app, ["export", str(result), "--out", str(out)], catch_exceptions=False)
    expected = hs.tidy(hs.open_results(result))
    pd.testing.assert_frame_equal(
        pd.DataFrame(json.loads(out.read_text())), expected, check_dtype=False, check_exact=True
    )


def test_json_rounds_nothing(tmp_path, result):
    """Small numbers keep all digits; unknown and infinite ones are null."""
    results = hs.open_results(result).isel(prompt=slice(3)).load()
    results["total"][{"prompt": 0}] = 3.1416e-14
    results["total"][{"prompt": 1}] = np.nan
    results["total"][{"prompt": 2}] = np.inf
    write_export(results, tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["total"] for row in rows[::12]] == [pytest.approx(3.1416e-14, rel=1e-6, abs=0), None, None]


def test_parquet_holds_the_same_table(tmp_path, result):
    pytest.importorskip("pyarrow")
    out = tmp_path / "a.parquet"
    CliRunner().invoke(app, ["export", str(result), "--out", str(out)], catch_exceptions=False)
    pd.testing.assert_frame_equal(pd.read_parquet(out), hs.tidy(hs.open_results(result)), check_dtype=False)


def test_netcdf_holds_the_whole_result(tmp_path, result):
    out = tmp_path / "a.nc"
    told = CliRunner().invoke(app, ["export", str(result), "--out", str(out)], catch_exceptions=False)
    expected = hs.open_results(result).load()
    assert told.stdout == f"{len(expected.variables)} variables: {out}\n"
    found = xr.load_dataset(out)
    assert found.sizes == expected.sizes
    for name, variable in expected.variables.items():
        if variable.dtype.kind == "f":
            np.testing.assert_array_equal(found[name], variable, err_msg=name)
        elif variable.dtype.kind == "O":
            assert [str(each) for each in found[name].values.ravel()] == [str(each) for each in variable.values.ravel()]
    assert found.attrs["model"] == expected.attrs["model"]
    assert found["total"].attrs["units"] == "logits"


def test_what_cannot_be_written(tmp_path, result):
    def export(out):
        CliRunner().invoke(
            app, ["export", str(result), "--out", str(out)], catch_exceptions=False, standalone_mode=False
        )

    with pytest.raises(HydrascopeError, match=r"give a file name that ends in \.csv or .* or \.nc"):
        export(tmp_path / "a.xlsx")
    (tmp_path / "there.csv").write_text("kept")
    with pytest.raises(HydrascopeError, match="exists: choose another path, or add --overwrite"):
        export(tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "kept"
    with pytest.raises(HydrascopeError, match="cannot write"):
        export(tmp_path / "missing" / "a.csv")
