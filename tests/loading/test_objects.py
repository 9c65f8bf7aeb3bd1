"""A model that the user has in hand: taken as it is, given back as it was, or refused in one line."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import TEXTS, loaded
from tiny import save_tiny, tiny, tiny_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import hydrascope as hs
from hydrascope.loading.load import load_model
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


def hf(case: str = "llama", dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    made: PreTrainedModel = tiny(case, dtype).hf
    return made


def test_it_measures_as_a_model_that_is_read(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    given = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_model(given, tiny_tokenizer())
    assert model.hf is given
    assert model.name == str(folder)
    found, expected = (hs.sweep(each, TEXTS, hs.Resample(2)) for each in (model, load_model(folder)))
    for name in ("total", "unembed", "unembed_ablated", "patch_prompt", "target", "target_text"):
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ["gpt2", "qwen3_moe"])
def test_it_comes_back_as_it_was(case: str, training: bool) -> None:
    """Mode, gradients, hooks, configuration and weights, after loading and after a run, also one that fails."""
    given = hf(case)
    given.train(training)
    given.base_model.get_input_embeddings().train(not training)
    frozen = next(given.parameters())
    frozen.requires_grad_(False)
    calls: list[str] = []
    handle = given.lm_head.register_forward_hook(lambda *arguments: calls.append("called"))

    def state() -> Any:
        modules = [
            (name, m.training, sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks), m.forward.__func__)
            for name, m in given.named_modules()
        ]
        parameters = [(name, p.requires_grad, p.grad is None) for name, p in given.named_parameters()]
        weights = {name: value.clone() for name, value in given.state_dict().items()}
        return modules, parameters, given.config.to_dict(), given.config._attn_implementation, weights

    def same(one: Any, other: Any) -> bool:
        return one[:-1] == other[:-1] and all(torch.equal(value, other[-1][name]) for name, value in one[-1].items())

    before = state()
    model = load_model(given, tiny_tokenizer())
    assert same(state(), before)
    for at in ("last", -1):
        results = hs.sweep(model, TEXTS, hs.Noise(2), ablate="attn", at=at, metrics=["kl"])
        assert results.attrs["worst_imbalance"] < 1e-4
        assert same(state(), before)

    def broken(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        raise ValueError("broken")

    for engine in ("wavefront", "reference"):
        with pytest.raises(HydrascopeError, match="broken"):
            hs.sweep(model, TEXTS, hs.Zero(), metrics=[broken], engine=engine)
        assert same(state(), before)
    assert calls
    handle.remove()


def test_dropout_changes_nothing() -> None:
    """A model in training mode is measured as the same one out of it."""
    given = hf("gpt2")
    assert given.training
    assert given.config.resid_pdrop > 0
    still = copy.deepcopy(given).eval()
    found, expected = (hs.sweep(load_model(each, tiny_tokenizer()), TEXTS, hs.Resample(2)) for each in (given, still))
    np.testing.assert_array_equal(found["total"], expected["total"])


def scaled(module: nn.Module, inputs: Any, output: Any) -> Any:
    return (output[0] * 1.5, *output[1:]) if isinstance(output, tuple) else output * 1.5


def test_a_hook_inside_a_sublayer_is_measured_as_part_of_the_model() -> None:
    """As the model would be whose weights do the same."""
    hooked, changed = hf(), hf()
    hooked.model.layers[1].mlp.up_proj.register_forward_hook(scaled)
    with torch.no_grad():
        changed.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    found, expected = (
        hs.sweep(load_model(each, tiny_tokenizer()), TEXTS, hs.Resample(2), ablate="layers,heads", read="heads")
        for each in (hooked, changed)
    )
    for name in ("total", "direct", "indirect", "unembed", "unembed_ablated", "unembed_ablated_own"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
    assert float(abs(found["total"]).max()) > 0.1


@pytest.mark.parametrize(
    ("module", "identity"),
    [
        (lambda given: given.model.layers[1], "the components sum to the final residual stream"),
        (lambda given: given.model.layers[1].mlp, "heads and neurons sum to their sublayers"),
        (lambda given: given.model.layers[1].self_attn.o_proj, "heads and neurons sum to their sublayers"),
        (lambda given: given.model.norm, "reading the residual stream gives the centred logit"),
        (lambda given: given.lm_head, "reading the residual stream gives the centred logit"),
    ],
)
def test_a_hook_that_no_component_accounts_for_is_refused(module: Callable[[Any], nn.Module], identity: str) -> None:
    """With the identity that it breaks, and by a model that was loaded before, too."""
    given = hf()
    model = load_model(given, tiny_tokenizer())
    handle = module(given).register_forward_hook(scaled)
    with pytest.raises(
        HydrascopeError, match=rf"fails the self-check: {identity} does not hold .*it holds without the hooks on"
    ):
        load_model(given, tiny_tokenizer())
    with pytest.raises(HydrascopeError, match=f"fails the self-check: {identity} does not hold"):
        hs.sweep(model, TEXTS, hs.Zero())
    handle.remove()
    assert load_model(given, tiny_tokenizer())


class Wrapped(nn.Module):
    """A module around one of transformers, of no tool that is known."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.base_model = inner
        self.config = inner.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Wrapped(hf()),), "a Wrapped is no transformers model: give a name, a folder, a PreTrainedModel, or a"),
        ((None,), "a NoneType is no transformers model"),
        (("somewhere", tiny_tokenizer()), "the tokenizer of somewhere comes with it: leave yours out"),
    ],
)
def test_what_is_no_model_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        load_model(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["revision", "dtype", "device"])
def test_what_it_has_of_its_own_is_not_asked_for(option: str) -> None:
    arguments: dict[str, Any] = {option: "float32"}
    with pytest.raises(HydrascopeError, match=f"has its own {option}: leave {option} out"):
        load_model(hf(), **arguments)


def test_weights_that_are_not_finite_are_refused() -> None:
    given = hf()
    with torch.no_grad():
        given.model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(HydrascopeError, match=r"not finite: NaN or infinity in model\.layers\.1\.mlp\.up_proj"):
        load_model(given)


@pytest.mark.slow
def test_the_revision_is_a_hash_of_what_is_computed(tmp_path: Path) -> None:
    given = hf(dtype=torch.bfloat16)
    revision = load_model(given).revision
    assert revision.startswith("sha256:")
    assert load_model(copy.deepcopy(given)).revision == revision
    moved = copy.deepcopy(given)
    moved.config._name_or_path = "elsewhere"
    assert load_model(moved).revision == revision
    with torch.no_grad():
        moved.model.layers[2].self_attn.q_proj.weight[0, 0] += 1
    assert load_model(moved).revision != revision
    other = copy.deepcopy(given)
    other.config.rms_norm_eps *= 2
    assert load_model(other).revision != revision
    assert load_model(hf(dtype=torch.float32)).revision != revision


def test_a_run_goes_on_with_the_same_model_only(tmp_path: Path) -> None:
    given = hf()
    hs.sweep(load_model(given), [[5, 6], [7, 8, 9]], hs.Zero(), out=tmp_path / "r.zarr")
    hs.sweep(load_model(copy.deepcopy(given)), [[5, 6], [7, 8, 9]], hs.Zero(), out=tmp_path / "r.zarr", resume=True)
    with torch.no_grad():
        given.model.norm.weight[0] += 1
    with pytest.raises(HydrascopeError, match=r"revision was 'sha256:.*', now 'sha256:"):
        hs.sweep(load_model(given), [[5, 6], [7, 8, 9]], hs.Zero(), out=tmp_path / "r.zarr", resume=True)


def test_token_ids_need_no_tokenizer() -> None:
    """They are the prompts that a tokenizer makes; what is shown of them are the ids."""
    with_tokenizer, model = loaded("gpt2"), load_model(loaded("gpt2").hf)
    tokens = [with_tokenizer.encode(text) for text in TEXTS]
    found = hs.sweep(model, tokens, hs.Resample(2), at="-1", readouts=[hs.Logit(), hs.Placebo(2)], metrics=["kl"])
    expected = hs.sweep(with_tokenizer, TEXTS, hs.Resample(2), metrics=["kl"])
    np.testing.assert_allclose(found["total"][0], expected["total"][0], rtol=0, atol=1e-12)
    assert list(found["target_text"].values) == [str(target) for target in expected["target"].values]
    assert str(found["text"].values[0]) == " ".join(map(str, tokens[0]))
    twins = [hs.Prompt(tokens=tuple(ids), answer=5, foil=6, counterfactual=(*ids[:-1], 9)) for ids in tokens]
    results = hs.sweep(model, twins, hs.Counterfactual(), at="all", readouts=[hs.LogitDifference()], target="answer")
    np.testing.assert_array_equal(results["target"], 5)
    for asked, message in (({"at": "subject"}, "is given as token ids"), ({}, "was made without a tokenizer")):
        prompts: Any = twins if asked else ["text"]
        with pytest.raises(HydrascopeError, match=message):
            hs.sweep(model, prompts, hs.Zero(), **asked)


def test_a_text_alone_is_one_prompt() -> None:
    model = loaded()
    found, expected = (hs.sweep(model, prompts, hs.Zero()) for prompts in ("the cat", ["the cat"]))
    np.testing.assert_array_equal(found["total"], expected["total"])
    assert list(found["text"].values) == ["the cat"]
    with pytest.raises(HydrascopeError, match=r'15 other prompts to draw from, and prompt 1 \("the cat"\) has 0'):
        hs.sweep(model, "the cat")
