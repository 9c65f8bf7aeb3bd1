"""What only a GPU can show: `make gpu` on a machine that has one.

Elsewhere all is skipped, but where HYDRASCOPE_TEST_DEVICE names another device: `cpu`, to see that the tests work.
"""

import os
from pathlib import Path

import pytest
import torch
import xarray as xr
from asked import heads, neurons, request
from faults.processes import TEXTS
from stored import run_to_disk
from tiny import CONFIGS, tiny, tiny_tokenizer

from hydrascope import Resample, sweep
from hydrascope.engines import Engine, Readings, Request, wavefront
from hydrascope.models.float64 import Float64Mode
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.storage.reader import open_results

DEVICE = os.environ.get("HYDRASCOPE_TEST_DEVICE", "cuda")
CUDA = DEVICE.startswith("cuda")

pytestmark = pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="there is no GPU")

#: Prompts of one length, so that each can patch every position of each.
EVEN = [text[:6] for text in TEXTS if len(text) >= 6][:6]
ABLATE = "layers,heads.1,attn.0|mlp.1,attn.0+mlp.2"


def on_device(case: str, dtype: torch.dtype) -> LanguageModel:
    model = tiny(case, dtype)
    moved = LanguageModel(model.hf.to(DEVICE), tiny_tokenizer(), name=case)
    assert moved.device.type == torch.device(DEVICE).type
    return moved


def on_cpu(case: str, dtype: torch.dtype) -> LanguageModel:
    model = tiny(case, dtype)
    return LanguageModel(model.hf.to("cpu"), tiny_tokenizer(), name=case)


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("case", CONFIGS)
def test_a_gpu_measures_what_a_cpu_does(case: str, at: str) -> None:
    """In float64 throughout, up to its rounding, of every architecture and by both engines."""
    asked = {"ablate": ABLATE, "read": "heads,mlp", "at": at, "metrics": ["kl", "rank"]}
    with Float64Mode():
        expected = sweep(on_cpu(case, torch.float64), EVEN, Resample(2), **asked, engine="reference")
    for engine in ("auto", "reference"):
        with Float64Mode():
            found = sweep(on_device(case, torch.float64), EVEN, Resample(2), **asked, engine=engine)
        xr.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.skipif(not CUDA, reason="only CUDA tells of it")
@pytest.mark.parametrize("case", [case for case in CONFIGS if tiny(case).anatomy.supports_wavefront])
def test_nothing_in_a_sweep_waits_for_the_host(case: str) -> None:
    model = on_device(case, torch.float32)
    asked = request(model, ["attn.0", "mlp.1", "head.1.2"], (5, 7), "span", units=(*heads(model), *neurons(model)))
    # What is made once, and may wait: the schedule of a model's first sweep.
    wavefront.measure(model, asked)
    torch.cuda.set_sync_debug_mode("error")
    try:
        wavefront.measure(model, asked)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_device("llama", torch.float32)
    whole = run_to_disk(model, TEXTS, Resample(3), out=tmp_path / "whole.zarr", batch_size=2)
    written, blocks = "hydrascope.storage.writer.Writer.update_measured", iter(range(1))

    def once(*given: object) -> None:
        if next(blocks, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(written, once)
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, Resample(3), out=tmp_path / "r.zarr", batch_size=2)
    run_to_disk(model, TEXTS, Resample(3), out=tmp_path / "r.zarr", resume=True)
    xr.testing.assert_identical(
        open_results(tmp_path / "r.zarr").load().drop_attrs(), open_results(whole).load().drop_attrs()
    )


def test_half_the_width_gives_the_same_up_to_its_rounding() -> None:
    narrow, wide = (sweep(on_device("llama", dtype), TEXTS, Resample(3)) for dtype in (torch.bfloat16, torch.float32))
    assert float(abs(narrow["total"] - wide["total"]).max()) < 0.05 * float(abs(wide["total"]).max())


def test_where_memory_runs_out_less_is_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as fits, with the numbers of smaller batches."""
    model, tried = on_device("llama", torch.float32), []

    def scarce(model: LanguageModel, asked: Request) -> Readings:
        tried.append(len(asked.tokens))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return wavefront.measure(model, asked)

    expected = sweep(model, TEXTS, Resample(3), batch_size=2)
    monkeypatch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", scarce, "for the test"))
    found = sweep(model, TEXTS, Resample(3), batch_size=8)
    assert max(tried) == 8
    assert found.attrs["batch_size"] == 2
    xr.testing.assert_allclose(found["total"], expected["total"], atol=1e-5)
