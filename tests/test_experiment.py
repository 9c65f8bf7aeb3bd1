"""A run gives the numbers that plain arithmetic on plain forward passes gives."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny, tiny_tokenizer
from torch import nn

from hydrascope import books, plan, store
from hydrascope.ablation import Ablation, Mean, Noise, Resample, Zero
from hydrascope.components import Component
from hydrascope.engines import Effects, Engine, Request, reference, wavefront
from hydrascope.errors import HydrascopeError
from hydrascope.experiment import run, sweep
from hydrascope.model import LanguageModel
from hydrascope.prompts import Prompt, PromptSet
from hydrascope.store import open_results

torch.set_num_threads(1)

TEXTS = ("ab", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv", "b", "hello", "wxyz abc def", "Z")


def loaded(case: str = "llama", dtype: torch.dtype = torch.float64) -> LanguageModel:
    model = tiny(case, dtype)
    model.tokenizer = tiny_tokenizer()
    return model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded()


@torch.no_grad()
def plain_run(
    model: LanguageModel, text: str, ablated: Component | None = None, value: torch.Tensor | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """What every attention and MLP adds at the last position, the final residual stream, the centred logits."""
    written: dict[str, torch.Tensor] = {}
    final = []

    def hook(component: Component) -> Callable:
        def write(module: object, inputs: object, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if component == ablated:
                tensor[0, -1] = value
            written[str(component)] = tensor[0, -1].clone()

        return write

    layers, norm = parts(model)
    handles = [norm.register_forward_pre_hook(lambda module, inputs: final.append(inputs[0][0, -1]))]
    for i, (attention, mlp) in enumerate(layers):
        handles.append(attention.register_forward_hook(hook(Component(i, "attn"))))
        handles.append(mlp.register_forward_hook(hook(Component(i, "mlp"))))
    logits = model.hf(torch.tensor([model.encode(text)])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return written, final[0], logits - logits.mean()


def parts(model: LanguageModel) -> tuple[list[tuple[nn.Module, nn.Module]], nn.Module]:
    """Attention and MLP of each layer, and the final norm, of a gpt2 or a llama."""
    if model.name == "gpt2":
        return [(block.attn, block.mlp) for block in model.hf.transformer.h], model.hf.transformer.ln_f
    return [(block.self_attn, block.mlp) for block in model.hf.model.layers], model.hf.model.norm


# transformers computes RMSNorm in float32, whatever the model's dtype.
@pytest.mark.parametrize(("case", "atol"), [("gpt2", 1e-10), ("llama", 1e-6)])
@pytest.mark.parametrize("norm", ["clean", "run"])
def test_every_number_is_that_of_plain_forward_passes(case: str, atol: float, norm: books.Norm) -> None:
    """Each quantity by its definition, run by run, for resample ablation."""
    model = loaded(case)
    results = sweep(model, TEXTS, Resample(patches=2), norm=norm, batch_size=3)
    clean = [plain_run(model, text) for text in TEXTS]
    gain, unembedding = parts(model)[1].weight, model.hf.lm_head.weight
    names = [str(component) for component in model.components]
    assert results.sizes == {"prompt": len(TEXTS), "ablated": 6, "patch": 2, "component": 6}

    def centred(vector: torch.Tensor) -> torch.Tensor:
        return vector - vector.mean() if case == "gpt2" else vector

    def sigma(residual: torch.Tensor) -> torch.Tensor:
        return (centred(residual).square().mean() + model.norm_eps).sqrt()

    for prompt, text in enumerate(TEXTS):
        written, final, logits = clean[prompt]
        target = int(logits.argmax())
        here = results.isel(prompt=prompt)
        assert int(here["target"]) == target
        assert str(here["text"].values) == text
        assert str(here["target_text"].values) == model.decode(target)
        assert float(here["logit"]) == pytest.approx(float(logits[target]), abs=atol)
        direction = gain * (unembedding[target] - unembedding.mean(0))

        def read(vector: torch.Tensor, scale: torch.Tensor, direction: torch.Tensor = direction) -> float:
            return float(centred(vector) @ direction / scale)

        constant = float(logits[target]) - read(final, sigma(final))

        for name in names:
            unembed = float(here["unembed"].sel(component=name))
            assert unembed == pytest.approx(read(written[name], sigma(final)), abs=atol)
        assert int(here["patch_prompt"].min()) >= 0
        assert prompt not in here["patch_prompt"]
        for ablated, patch in product(model.components, range(2)):
            cell = here.sel(ablated=str(ablated)).isel(patch=patch)
            value = clean[int(here["patch_prompt"][patch])][0][str(ablated)]
            changed, end, ablated_logits = plain_run(model, text, ablated, value)
            z = {"direct": final + value - written[str(ablated)], "indirect": end - value + written[str(ablated)]}
            expected = {name: read(z[name], sigma(z[name])) - read(final, sigma(final)) for name in z}
            expected["total"] = float(ablated_logits[target] - logits[target])
            if norm == "clean":
                expected["norm"] = float(ablated_logits[target]) - constant - read(end, sigma(final))
            else:
                moved = sum(changed[name] for name in names if Component.parse(name) >= ablated)
                expected["norm"] = read(end - moved, sigma(end)) - read(end - moved, sigma(final))
            for name, number in expected.items():
                assert float(cell[name]) == pytest.approx(number, abs=atol), name
            scale = sigma(final) if norm == "clean" else sigma(end)
            for name in names:
                unembed = float(cell["unembed_ablated"].sel(component=name))
                assert unembed == pytest.approx(read(changed[name], scale), abs=atol)
    below = {(a, b): Component.parse(a) < Component.parse(b) for a, b in product(names, names)}
    assert {(a, b): bool(results["downstream"].sel(ablated=a, component=b)) for a, b in product(names, names)} == below


def close(one: xr.Dataset, other: xr.Dataset, atol: float = 1e-10) -> None:
    for name in set(store.MEASURED) - {"imbalance"} | {"target", "downstream"}:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "ablation", [Zero(), Mean(), Noise(2, 1.0, 3), Resample(2, 5), Resample(2, 5, different_target=True)]
)
@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "stablelm"])
def test_batches_and_engines_change_nothing(case: str, ablation: Ablation) -> None:
    model = loaded(case)
    results = sweep(model, TEXTS, ablation, batch_size=16)
    close(sweep(model, TEXTS, ablation, batch_size=1), results)
    close(sweep(model, TEXTS, ablation, batch_size=2, engine="reference"), results)
    assert results.attrs["worst_imbalance"] == results["imbalance"].max() < 1e-10
    assert results.attrs["engine"] == "wavefront"


def test_parallel_blocks_are_said_to_be(model: LanguageModel) -> None:
    parallel = sweep(loaded("gpt_neox"), TEXTS, Zero())
    assert not parallel["downstream"].sel(ablated="attn.1", component="mlp.1")
    assert sweep(model, TEXTS, Zero())["downstream"].sel(ablated="attn.1", component="mlp.1")


def test_attributes_say_how_it_was_made(model: LanguageModel) -> None:
    prompts = PromptSet.of(TEXTS, "mine")
    results = sweep(model, prompts, Noise(2, 1.5, 7), norm="run", batch_size=4)
    expected = {
        "model": "llama",
        "revision": "",
        "dtype": "float64",
        "device": "cpu",
        "engine": "wavefront",
        "ablation": "noise",
        "patches": 2,
        "noise_scale": 1.5,
        "seed": 7,
        "norm": "run",
        "target": "argmax",
        "prompts": "mine",
        "prompts_hash": prompts.hash,
        "prompt_count": len(TEXTS),
        "measured": len(TEXTS),
        "batch_size": 4,
        "torch": torch.__version__,
    }
    assert {name: results.attrs[name] for name in expected} == expected
    assert str(Path.home()) not in results.attrs["command"]


def test_numbers_are_float32_unless_the_model_is_wider() -> None:
    for dtype, stored in ((torch.bfloat16, "float32"), (torch.float32, "float32"), (torch.float64, "float64")):
        results = sweep(loaded(dtype=dtype), TEXTS, Zero())
        assert {str(results[name].dtype) for name in store.MEASURED} == {stored, "int64"}
        assert results["logit"].notnull().all()


def test_answers_can_be_the_targets(model: LanguageModel) -> None:
    prompts = [Prompt("the ", "cat"), Prompt("a\n", " dog"), Prompt("no", "way")]
    results = sweep(model, prompts, Resample(patches=2), target="answer")
    assert list(results["target_text"].values) == ["c", " ", " "]
    for prompt, target in zip(prompts, results["target"].values, strict=True):
        assert float(results["logit"].sel(prompt=prompts.index(prompt))) == pytest.approx(
            float(plain_run(model, prompt.text)[2][target])
        )


def test_a_stored_run_is_the_sweep_in_memory(model: LanguageModel, tmp_path: Path) -> None:
    arguments = {"batch_size": 1, "norm": "run"}
    expected = sweep(model, TEXTS, Resample(3), **arguments)
    assert run(model, TEXTS, Resample(3), out=tmp_path / "r.zarr", **arguments) == tmp_path / "r.zarr"
    xr.testing.assert_identical(open_results(tmp_path / "r.zarr"), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "ours"}, "unknown norm 'ours': choose clean or run"),
        ({"target": "best"}, "unknown target 'best': choose argmax or answer"),
        ({"engine": "steam"}, "unknown engine 'steam'"),
        ({"batch_size": 0}, "a batch of 0 prompts"),
        ({"target": "answer"}, r"prompt 1 .* has no answer"),
        ({"ablation": Resample(11)}, "11 resample patches need 11 other prompts"),
    ],
)
def test_wrong_options_leave_nothing_behind(
    model: LanguageModel, tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(HydrascopeError, match=message):
        run(model, TEXTS, out=tmp_path / "r.zarr", **{"ablation": Resample(2), **arguments})
    assert list(tmp_path.iterdir()) == []


def engine(monkeypatch: pytest.MonkeyPatch, measure: Callable[[LanguageModel, Request], Effects]) -> None:
    monkeypatch.setattr(plan, "choose", lambda model, name: Engine("fake", measure, "for the test"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_the_batch_is_halved_when_memory_runs_out(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = sweep(model, TEXTS, Zero())
    sizes: list[int] = []

    def measure(model: LanguageModel, request: Request) -> Effects:
        sizes.append(len(request.tokens))
        if sizes[-1] > 2:
            raise error
        return wavefront.measure(model, request)

    engine(monkeypatch, measure)
    results = sweep(model, TEXTS, Zero(), batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert (results.attrs["batch_size"], results.attrs["block_size"]) == (2, 32)
    close(results, expected)


def test_what_does_not_fit_at_all_is_said(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(model: LanguageModel, request: Request) -> Effects:
        raise MemoryError

    engine(monkeypatch, measure)
    with pytest.raises(HydrascopeError, match="memory runs out with one prompt at a time"):
        sweep(model, TEXTS, Zero())


def test_other_errors_are_not_taken_for_memory(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(model: LanguageModel, request: Request) -> Effects:
        raise RuntimeError("shapes don't fit")

    engine(monkeypatch, measure)
    with pytest.raises(RuntimeError, match="shapes don't fit"):
        sweep(model, TEXTS, Zero())


@pytest.mark.parametrize("name", ["row_logit", "row_unembed", "row_frozen", "unembed"])
@pytest.mark.parametrize("norm", ["clean", "run"])
@pytest.mark.parametrize("wrong", [1e-3, float("nan"), float("inf")])
def test_a_run_whose_books_do_not_balance_fails(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, norm: books.Norm, wrong: float
) -> None:
    """One wrong number in the second block; the first block stays."""

    def measure(model: LanguageModel, request: Request) -> Effects:
        effects = wavefront.measure(model, request)
        if model.encode(TEXTS[5]) in list(request.tokens):
            getattr(effects, name)[list(request.tokens).index(model.encode(TEXTS[5]))].reshape(-1)[-1] += wrong
        return effects

    engine(monkeypatch, measure)
    with pytest.raises(
        HydrascopeError, match=r'prompt 6 \("no"\) (do not balance: off by (0.00|inf|nan)|is not finite)'
    ):
        run(model, TEXTS, Zero(), out=tmp_path / "r.zarr", norm=norm, batch_size=1)
    assert open_results(tmp_path / "r.zarr").sizes["prompt"] == 4


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_an_engine_that_misses_the_clean_run_fails(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    engine(monkeypatch, lambda model, request: replace(reference.measure(model, request), clean_error=error))
    with pytest.raises(HydrascopeError, match="the fake engine does not reproduce the clean run"):
        sweep(model, TEXTS, Zero())
