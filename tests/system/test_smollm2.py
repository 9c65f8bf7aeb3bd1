"""A real model, where it has been fetched: engines against plain passes, a verdict, and damaged files in one line."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from plain import exactly_normed
from torch import Tensor, nn

import hydrascope as hs
from hydrascope.loading.fetch import FETCHABLE, model_file
from hydrascope.models.float64 import Float64Mode
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

FILE = model_file("smollm2")
pytestmark = [
    pytest.mark.skipif(not FILE.exists(), reason="SmolLM2 isn't fetched: run `hydrascope fetch smollm2`"),
    pytest.mark.xdist_group("smollm2"),
]

#: First, middle and last blocks, both kinds; a head.
ABLATED = ["attn.0", "mlp.2", "attn.15", "mlp.21", "attn.28", "head.28.3", "mlp.29"]
SUBLAYERS = [f"{kind}.{block}" for block in range(30) for kind in ("attn", "mlp")]
TEXTS = ["The capital of Germany is", "Mary has a mother tongue, and that is"]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Return the model in float64, its norms included."""
    return exactly_normed(hs.load_model("smollm2", dtype="float64"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["wavefront", "reference"])
def test_every_number_is_that_of_a_plain_pass(model: LanguageModel, engine: str) -> None:
    """Two prompts, each patched by the other: hooks on transformers, a whole pass for every number."""
    with Float64Mode():
        results = hs.sweep(model, TEXTS, hs.Resample(1), ablate=",".join(ABLATED), engine=engine)
        clean = [_pass(model, text, {}) for text in TEXTS]
        for prompt, text in enumerate(TEXTS):
            logits, writes, stream = clean[prompt]
            target = int(logits.argmax())
            direction, sigma = _direction(model, target), _sigma(model, stream)
            assert int(results["target"][prompt]) == target
            one = results.isel(prompt=prompt, readout=0)
            for name in SUBLAYERS:
                _close(one["unembed"].sel(component=name), writes[name] @ direction / sigma)
            for label in ABLATED:
                patch = _value(model, TEXTS[1 - prompt], label)
                row_logits, row_writes, _ = _pass(model, text, {label: patch})
                row = one.sel(ablated=label)
                _close(row["total"].squeeze(), _centred(row_logits, target) - _centred(logits, target))
                for name in SUBLAYERS:
                    _close(row["unembed_ablated"].sel(component=name), row_writes[name] @ direction / sigma)


def _close(ours: xr.DataArray, theirs: Tensor | float) -> None:
    np.testing.assert_allclose(float(ours), float(theirs), rtol=0, atol=1e-9)


def _centred(logits: Tensor, target: int) -> float:
    return float(logits[target] - logits.mean())


def _direction(model: LanguageModel, target: int) -> Tensor:
    unembedding = model.hf.lm_head.weight
    return model.hf.model.norm.weight * (unembedding[target] - unembedding.mean(0))


def _sigma(model: LanguageModel, stream: Tensor) -> Tensor:
    return (stream.square().mean() + model.hf.model.norm.variance_epsilon).sqrt()


def _site(model: LanguageModel, label: str) -> tuple[nn.Module, slice, bool]:
    """Return a module, the columns of its activation, and whether that activation is the module's input."""
    kind, block, *unit = label.split(".")
    layer = model.hf.model.layers[int(block)]
    if kind == "head":
        return layer.self_attn.o_proj, slice(64 * int(unit[0]), 64 * int(unit[0]) + 64), True
    return (layer.self_attn.o_proj if kind == "attn" else layer.mlp), slice(None), False


@torch.inference_mode()
def _pass(model: LanguageModel, text: str, patches: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return logits, the writes of all sublayers and the final stream, at the last position of one prompt."""
    writes: dict[str, Tensor] = {}
    stream: list[Tensor] = []

    def overwrite(columns: slice, patch: Tensor, activation: Tensor) -> Tensor:
        changed = activation.clone()
        changed[0, -1, columns] = patch
        return changed

    def keep(label: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        writes[label] = output[0, -1].clone()

    with ExitStack() as hooks:
        for label, patch in patches.items():
            module, columns, reads = _site(model, label)
            put = partial(overwrite, columns, patch)
            handle = (
                module.register_forward_pre_hook(lambda _, inputs, put=put: (put(inputs[0]),))
                if reads
                else module.register_forward_hook(lambda _, __, output, put=put: put(output))
            )
            hooks.callback(handle.remove)
        for label in SUBLAYERS:
            handle = _site(model, label)[0].register_forward_hook(partial(keep, label))
            hooks.callback(handle.remove)
        handle = model.hf.model.norm.register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0][0, -1]))
        hooks.callback(handle.remove)
        logits = model.hf(torch.tensor([model.encode(text)])).logits[0, -1]
    return logits, writes, stream[0]


@pytest.mark.slow
@torch.no_grad()
def test_a_head_attends_to_the_country(model: LanguageModel) -> None:
    """The weights of docs/explore.md, and those of transformers' eager attention, clean and without attn.22."""
    found = hs.analyses.attention(model, TEXTS[0], "attn.22", "head.23.4")["attention"].isel(head=0)
    np.testing.assert_allclose(found[0], [0.08, 0.01, 0.01, 0.89, 0.01], atol=0.006)
    np.testing.assert_allclose(found[1], [0.11, 0.02, 0.01, 0.85, 0.01], atol=0.006)
    kept: list[Tensor] = []
    attention = model.attention(22), model.attention(23)

    def keep(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        kept.append(output[1][0, 4, -1])

    def leave_out(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        last = torch.arange(output[0].shape[1])[:, None] == output[0].shape[1] - 1
        return output[0].masked_fill(last, 0), output[1]

    before = model.hf.config._attn_implementation
    with ExitStack() as stack:
        stack.callback(setattr, model.hf.config, "_attn_implementation", before)
        model.hf.config._attn_implementation = "eager"
        stack.callback(attention[1].register_forward_hook(keep).remove)
        model.hf(torch.tensor([model.encode(TEXTS[0])]))
        stack.callback(attention[0].register_forward_hook(leave_out).remove)
        model.hf(torch.tensor([model.encode(TEXTS[0])]))
    for weights, expected in zip(found, kept, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


@torch.inference_mode()
def _value(model: LanguageModel, text: str, label: str) -> Tensor:
    """Return the clean activation of a component at the last position of a prompt."""
    found: list[Tensor] = []
    module, columns, reads = _site(model, label)
    handle = module.register_forward_hook(
        lambda _, inputs, output: found.append((inputs[0] if reads else output)[0, -1, columns].clone())
    )
    try:
        model.hf(torch.tensor([model.encode(text)]))
    finally:
        handle.remove()
    return found[0]


@pytest.mark.slow
def test_the_verdict_on_60_prompts_is_the_one_that_is_known() -> None:
    """Attention's late sublayer comes back through the norm, as on 1,208 other prompts (docs/findings)."""
    prompts = list(hs.load_prompts("common-facts"))[:60]
    results = hs.sweep(hs.load_model("smollm2"), prompts, hs.Zero())
    summary = hs.reports.summarise(results)
    attention = next(each for each in summary.verdicts if each.kind == "attn")
    assert attention.component in ("attn.27", "attn.28")
    assert 0.4 < attention.restored.low < attention.restored.high < 1.3
    by_attention, by_mlps, by_norm = (each.estimate for each in attention.amounts)
    assert by_norm > max(by_attention, by_mlps)
    assert {each.question: each.answer for each in attention.answers}["prompt by prompt"] != "no"


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Callable[[bytes], bytes]], Path]:
    """Return a function that writes a damaged copy of the file."""

    def write(change: Callable[[bytes], bytes]) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(change(FILE.read_bytes()))
        return path

    return write


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:1000],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"GGML" + data[4:],
        lambda data: data.replace(b"llama", b"lamma"),
        lambda data: b"",
    ],
    ids=["header cut", "half", "last byte", "magic", "architecture", "empty"],
)
def test_a_damaged_file_is_one_line(damaged: Callable, change: Callable[[bytes], bytes], hydrascope: Callable) -> None:
    code, printed, said = hydrascope("check", str(damaged(change)))
    assert code == 2
    assert not printed
    assert said.startswith("hydrascope: cannot load")
    assert "Traceback" not in said


def test_the_file_is_the_one_that_is_pinned() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == FETCHABLE["smollm2"].sha256
    with pytest.raises(HydrascopeError, match="is a local file, which has no revision"):
        hs.load_model(str(FILE), revision="main")
