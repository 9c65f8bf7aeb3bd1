"""A run that reads many directions at once has the numbers of runs that read one by one, in both engines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import LONGER, Reader, loaded, plain_run

import hydrascope as hs
from hydrascope.runs.attrs import settings_of
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import make_plan
from hydrascope.utils.errors import HydrascopeError

ROWS = 7
OPTIONS: dict[str, Any] = {"ablate": ["attn.0", "head.1.2", "mlp.1|attn.2"], "read": "heads.1,neuron.2.3", "at": "all"}


def matrix(width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, width))


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
@pytest.mark.parametrize("case", ["gpt2", "gemma2"])
@pytest.mark.parametrize("before", [None, 2])
def test_together_they_are_what_each_is_alone(case: str, before: int | None, engine: str) -> None:
    model, rows = loaded(case), matrix()
    together = [hs.Logit(), hs.Directions(rows, before, "probe")]
    alone = [hs.Logit(), *(hs.Direction(row, before, f"probe.{number}") for number, row in enumerate(rows))]
    found, each = (
        hs.sweep(model, LONGER, hs.Zero(), readouts=readouts, engine=engine, **OPTIONS)
        for readouts in (together, alone)
    )
    only = hs.sweep(model, LONGER, hs.Zero(), readouts=together[1], engine=engine, **OPTIONS)
    assert found["readout"].values.tolist() == ["logit", *(f"probe.{number}" for number in range(ROWS))]
    names = [name for name in each.data_vars if each[name].dtype.kind == "f" and name != "imbalance"]
    assert {"total", "direct", "unembed", "unembed_ablated", "embed", "logit"} <= set(names)
    for name in names:
        scale = max(float(abs(each[name]).max()), 1.0)
        np.testing.assert_allclose(found[name].values, each[name].values, rtol=0, atol=1e-10 * scale, err_msg=name)
        if "readout" in each[name].dims:
            one = each[name].isel(readout=slice(1, None))
            np.testing.assert_allclose(only[name].values, one.values, rtol=0, atol=1e-10 * scale, err_msg=name)
    assert only.attrs["units"] == "unit of the readout"


@pytest.mark.parametrize("before", [None, 2])
def test_the_effects_are_those_of_plain_passes(before: int | None) -> None:
    model, rows = loaded("gpt2"), matrix()
    found = hs.sweep(model, LONGER, hs.Zero(), ablate="attn.0", readouts=hs.Directions(rows, before))
    for number, text in enumerate(LONGER):
        tokens = model.encode(text)
        clean = plain_run(model, tokens)
        changed = plain_run(model, tokens, {"attn.0": ([len(tokens) - 1], torch.zeros(1, 32, dtype=torch.float64))})
        for row, vector in enumerate(rows):
            reader = Reader(torch.from_numpy(vector), before)
            one = found.isel(readout=row, prompt=number)
            np.testing.assert_allclose(one["logit"], reader.whole(clean), rtol=0, atol=1e-9)
            total = reader.whole(changed) - reader.whole(clean)
            np.testing.assert_allclose(one["total"].values.item(), total, rtol=0, atol=1e-9)


def test_a_result_knows_the_numbers_of_its_directions() -> None:
    model = loaded("gpt2")

    def described(rows: np.ndarray) -> list[str]:
        plan = make_plan(model, LONGER, hs.Zero(), SweepConfig(readouts=hs.Directions(rows, 1, "sae")))
        return settings_of(plan)["readouts"]

    other = matrix()
    other[3, 4] += 1e-9
    assert described(matrix()) == described(matrix().copy()) != described(other)
    assert described(matrix())[0].startswith("Directions(name='sae', before=1, sha256:")


def test_two_readouts_of_one_name_are_refused() -> None:
    readouts = [hs.Directions(matrix()), hs.Direction(matrix()[0], name="direction.3")]
    with pytest.raises(HydrascopeError, match=r"two readouts are called 'direction\.3'"):
        hs.sweep(loaded("gpt2"), LONGER, hs.Zero(), readouts=readouts)


@pytest.mark.parametrize("before", [None, 2])
def test_a_thousand_rows_pass_the_check_of_batches(before: int | None) -> None:
    """Allow some rows small products by chance; rounding goes with the length of a row."""
    torch.manual_seed(0)
    model = hs.load_model("phantom")
    matrix = torch.nn.functional.normalize(torch.randn(1000, model.width), dim=1)
    prompts = hs.load_prompts("phantom").limit(6)
    many = hs.sweep(model, prompts, hs.Zero(), ablate="attn.3", readouts=hs.Directions(matrix, before=before))
    one = hs.sweep(
        model, prompts, hs.Zero(), ablate="attn.3", readouts=hs.Direction(matrix[7], before=before, name="direction.7")
    )
    np.testing.assert_allclose(many["total"].sel(readout="direction.7"), one["total"].isel(readout=0), atol=1e-4)


def test_other_names_are_another_result(tmp_path: Path) -> None:
    model = loaded("gpt2")
    matrix = torch.eye(model.width)[:2]
    first = hs.Directions(matrix, names=["a", "b"])
    hs.sweep(model, LONGER, hs.Zero(), ablate="attn.0", readouts=first, out=tmp_path / "r.zarr")
    other = hs.Directions(matrix, names=["c", "d"])
    with pytest.raises(HydrascopeError, match="cannot resume"):
        hs.sweep(model, LONGER, hs.Zero(), ablate="attn.0", readouts=other, out=tmp_path / "r.zarr", resume=True)
