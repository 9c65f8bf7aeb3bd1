"""Runs by products of differences: stored as such, resumed as such, and refused where they can't be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from plain import TEXTS, loaded
from stored import run_to_disk

import hydrascope as hs
from hydrascope.engines.kernels import hardware
from hydrascope.engines.kernels.differences import copied_bytes
from hydrascope.models.language_model import LanguageModel
from hydrascope.storage.writer import Writer
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

DIFFERENCES: dict[str, Any] = {"products": "bfloat16-differences"}
RUN: dict[str, Any] = {"batch_size": 1}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded(dtype=torch.float32)


@pytest.mark.parametrize(
    ("case", "halved", "expected"),
    [
        ("llama", False, {"mode": "bfloat16-differences", "weights": "rounded"}),
        ("llama", True, {"mode": "bfloat16-differences", "weights": "exact"}),
        ("mixtral", True, {"mode": "bfloat16-differences", "weights": "exact", "experts": "float32"}),
    ],
)
def test_a_result_says_how_it_was_multiplied(case: str, halved: bool, expected: dict[str, str]) -> None:
    made = loaded(case, torch.bfloat16 if halved else torch.float32)
    made.hf.float()
    found = hs.sweep(made, TEXTS, hs.Resample(2), **DIFFERENCES)
    plain = hs.sweep(made, TEXTS, hs.Resample(2))
    assert json.loads(found.attrs["products"]) == expected
    assert json.loads(plain.attrs["products"]) == {"mode": "float32"}
    # Of 3 blocks and random weights: near, and not the same.
    np.testing.assert_allclose(found["total"], plain["total"], atol=0.03 * float(np.abs(plain["total"]).max()))
    assert np.abs(found["total"] - plain["total"]).max() > 1e-4
    np.testing.assert_allclose(found["logit"], plain["logit"], atol=1e-5)


def interrupt(path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Leave a result of which one chunk of two is measured."""
    write, times = Writer.write, []

    def fail_at_the_second(*arguments: Any) -> Any:
        times.append(arguments)
        if len(times) == 2:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "write", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, hs.Resample(2), out=path, **RUN, **options)


@pytest.mark.parametrize(("started", "resumed"), [(DIFFERENCES, {}), ({}, DIFFERENCES)])
def test_a_run_goes_on_only_with_the_products_of_its_start(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: dict, resumed: dict
) -> None:
    path = tmp_path / "r.zarr"
    interrupt(path, model, monkeypatch, **started)
    with pytest.raises(
        HydrascopeError, match=r"cannot resume .*products was .*, now .*: give the options of its start"
    ):
        hs.sweep(model, TEXTS, hs.Resample(2), out=path, resume=True, **RUN, **resumed)
    found = hs.sweep(model, TEXTS, hs.Resample(2), out=path, resume=True, **RUN, **started)
    whole = hs.sweep(model, TEXTS, hs.Resample(2), **RUN, **started)
    np.testing.assert_array_equal(found["total"], whole["total"])


@pytest.mark.parametrize(
    ("case", "dtype", "options", "message"),
    [
        (
            "llama",
            torch.float32,
            {"engine": "reference"},
            "the reference engine runs each row alone: take the wavefront",
        ),
        ("llama", torch.float64, {}, "the model is in float64: load it in float32"),
        ("llama", torch.bfloat16, {}, "the model is in bfloat16: load it in float32"),
        ("mpt", torch.float32, {}, "the wavefront engine, which computes them, does not support this model"),
    ],
)
def test_where_there_are_no_products_of_differences(case: str, dtype: Any, options: dict, message: str) -> None:
    with pytest.raises(HydrascopeError, match=f"^no products of bfloat16-differences: {message}") as caught:
        hs.sweep(loaded(case, dtype), TEXTS, hs.Resample(2), **DIFFERENCES, **options)
    assert "\n" not in str(caught.value)


def test_weights_that_were_changed_since_are_copied_again() -> None:
    """Even if they were changed by `.data`, which PyTorch doesn't count as a change."""
    made = loaded(dtype=torch.float32)
    before = hs.sweep(made, TEXTS, hs.Zero(), **DIFFERENCES)
    for block in made.hf.model.layers:
        block.mlp.down_proj.weight.data *= 2
    expected, found = hs.sweep(made, TEXTS, hs.Zero()), hs.sweep(made, TEXTS, hs.Zero(), **DIFFERENCES)
    np.testing.assert_allclose(found["total"], expected["total"], atol=0.03 * float(np.abs(expected["total"]).max()))
    assert np.abs(before["total"] - expected["total"]).max() > 0.1


def test_the_settings_of_the_process_make_no_difference(model: LanguageModel) -> None:
    expected = hs.sweep(model, TEXTS, hs.Zero(), **DIFFERENCES)["total"]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = hs.sweep(model, TEXTS, hs.Zero(), **DIFFERENCES)["total"]
        of_inference = hs.sweep(loaded(dtype=torch.float32), TEXTS, hs.Zero(), **DIFFERENCES)["total"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(of_inference, expected)


@pytest.mark.usefixtures("unchecked_shapes")
def test_unknown_products_are_refused(model: LanguageModel) -> None:
    with pytest.raises(HydrascopeError, match="unknown products 'int8': choose float32, bfloat16-differences"):
        hs.sweep(model, TEXTS, hs.Resample(2), products="int8")  # type: ignore[call-overload]


def test_a_processor_that_is_slow_at_it_is_said_to_be(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "rate", lambda name, size, dtype, seconds: {torch.float32: 100.0}.get(dtype, 5.0))
    said: list[str] = []
    run_to_disk(model, TEXTS, hs.Resample(2), out=tmp_path / "r.zarr", ablate="mlp.0", say=said.append, **DIFFERENCES)
    assert any("products in bfloat16 take 20.0 times as long here as in float32" in line for line in said)


def test_the_copies_count_as_weights(model: LanguageModel) -> None:
    asked: dict[str, Any] = {"ablation": hs.Resample(2), "ablate": "mlp.0"}
    plain, found = hs.cost(model, TEXTS, **asked), hs.cost(model, TEXTS, **asked, **DIFFERENCES)
    assert found.weights - plain.weights == copied_bytes(model) > 0


def test_on_the_command_line(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.zarr"
    common = ("--prompts", folder / "prompts.txt", "--patches", "2", "--out", out)
    code, _, err = hydrascope("run", folder / "model", *common, "--products", "bfloat16-differences")
    assert (code, hs.open_results(out).attrs["products"]["mode"]) == (0, "bfloat16-differences"), err
    code, _, err = hydrascope("run", folder / "model", *common, "--overwrite", "--engine", "reference", "--products",
                              "bfloat16-differences")  # fmt: skip
    assert code == 2
    assert "take the wavefront engine" in err
