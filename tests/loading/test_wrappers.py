"""A model inside another tool's object: found, measured as the plain one, and left as it was."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import stand_ins
import torch
from plain import TEXTS
from tiny import tiny, tiny_tokenizer
from torch import nn

import hydrascope as hs
from hydrascope.loading import plain_copy
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

NAMES = ("total", "direct", "indirect", "unembed", "unembed_ablated", "unembed_ablated_own", "logit")
TOKENS = [[5, 6, 7], [9, 4, 11, 3], [20, 21, 22, 23, 24]]


def hf(case: str = "llama") -> Any:
    return tiny(case).hf.eval()


def require_same(given: Any, expected: Any, atol: float = 0.0) -> Any:
    """Compare what sublayers, heads and neurons of two models do; return the model that was given."""
    model = hs.load_model(given)
    found, other = (
        hs.sweep(each, TOKENS, hs.Zero(), ablate="layers,heads.1,neuron.1.3", read="layers,heads.1,neuron.1.3")
        for each in (model, hs.load_model(expected))
    )
    for name in NAMES:
        np.testing.assert_allclose(found[name], other[name], rtol=0, atol=atol, err_msg=name)
    return model


def state(model: nn.Module) -> Any:
    """Return all that a wrapper's user would miss: modules, their attributes and hooks, and the weights."""
    modules = [
        (name, id(each), sorted(vars(each)), each.training, list(each._forward_hooks))
        for name, each in model.named_modules()
    ]
    return modules, {name: value.clone() for name, value in model.state_dict().items()}


def require_unchanged(model: nn.Module, before: Any) -> None:
    modules, weights = state(model)
    assert modules == before[0]
    for name, value in weights.items():
        assert torch.equal(value, before[1][name]), name


@pytest.mark.parametrize("kind", [stand_ins.Envoy, stand_ins.StandardizedTransformer])
def test_the_module_inside_nnsight_and_nnterp_is_taken_with_the_tokenizer(kind: Any) -> None:
    given = hf()
    model = require_same(kind(given, tiny_tokenizer()), hf())
    assert model.hf is given
    assert len(model.encode("the cat")) == 7
    assert model.change == ""
    assert "weights_changed" not in hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn").attrs


def test_a_tokenizer_that_is_given_comes_first() -> None:
    own, other = tiny_tokenizer(), tiny_tokenizer()
    assert hs.load_model(stand_ins.Envoy(hf(), own), other).tokenizer is other


@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_a_bridge_is_measured_as_the_model_that_it_was_made_of(case: str) -> None:
    bridge = stand_ins.TransformerBridge(hf(case), tiny_tokenizer())
    before = state(bridge.original_model)
    model = require_same(bridge, hf(case))
    require_unchanged(bridge.original_model, before)
    assert model.tokenizer is bridge.tokenizer
    assert not any("Bridge" in type(each).__name__ for each in model.hf.modules())
    theirs = {id(weight) for weight in bridge.original_model.parameters()}
    assert all(id(weight) in theirs for weight in model.hf.parameters())


def test_a_bridge_with_processed_weights_is_measured_as_it_stands() -> None:
    """Query, key and value are the bridge's; the joint projection that it no longer uses is left."""
    bridge, expected = stand_ins.TransformerBridge(hf("gpt2")), hf("gpt2")
    bridge._weights_processed = True
    width = expected.config.n_embd
    with torch.no_grad():
        for number, block in enumerate(bridge.original_model.transformer.h):
            block.attn._modules["k"]._modules["_original_component"].weight.mul_(1.5)
            block.attn._modules["v"]._modules["_original_component"].bias.add_(0.5)
            joint = expected.transformer.h[number].attn.c_attn
            joint.weight[:, width : 2 * width] *= 1.5
            joint.bias[2 * width :] += 0.5
    before = state(bridge.original_model)
    model = require_same(bridge, expected)
    require_unchanged(bridge.original_model, before)
    assert model.change == "weights processed by TransformerLens"
    results = hs.sweep(model, TOKENS, hs.Zero(), ablate="attn")
    assert results.attrs["weights_changed"] == "weights processed by TransformerLens"


def test_heads_that_take_turns_in_a_joint_projection_are_joined_so() -> None:
    """Join query, key and value head by head, as GPT-NeoX does."""
    whole = nn.Linear(8, 12)
    rows = torch.arange(12).unflatten(0, (2, 3, 2))
    parts = []
    for number in range(3):
        part = nn.Linear(8, 4)
        chosen = rows[:, number].flatten()
        part.weight, part.bias = (nn.Parameter(each.detach()[chosen]) for each in (whole.weight, whole.bias))
        parts.append(part)
    made = plain_copy._joined(whole, parts, 2)
    assert torch.equal(made.weight, whole.weight)
    assert torch.equal(made.bias, whole.bias)


def test_a_bridge_with_a_hook_that_changes_it_is_refused() -> None:
    bridge = stand_ins.TransformerBridge(hf("gpt2"))
    bridge.original_model.transformer.h[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.5)
    message = "this TransformerBridge computes other logits than the transformers model inside it .*hooks or weights"
    with pytest.raises(HydrascopeError, match=message):
        hs.load_model(bridge)


def merged(model: Any) -> Any:
    """The plain formula: W + s B A."""
    plain = hf()
    for path, layer in model.named_modules():
        if isinstance(layer, stand_ins.LoraLinear):
            with torch.no_grad():
                plain.get_submodule(path).weight += layer.scale * layer.lora_B @ layer.lora_A
    return plain


@pytest.mark.parametrize("wrap", [stand_ins.PeftModel, lambda model: model, lambda m: stand_ins.Envoy(m)])
def test_adapters_are_merged_in_a_copy(wrap: Callable[[Any], Any]) -> None:
    given = stand_ins.with_adapters(hf()).train()
    before = state(given)
    model = require_same(wrap(given), merged(given))
    require_unchanged(given, before)
    assert model.change == "adapter merged"
    assert hs.sweep(model, TOKENS, hs.Zero(), ablate="attn").attrs["weights_changed"] == "adapter merged"
    shared = {id(weight) for weight in given.parameters()}
    # The adapted projections are copied, and nothing else.
    assert sum(id(weight) not in shared for weight in model.hf.parameters()) == 9


def test_adapters_are_measured_as_plain_passes_of_the_users_own_model() -> None:
    """A head's value is set to zero by a hook on the layer with the adapter: nothing is merged."""
    given = stand_ins.with_adapters(hf())
    model = hs.load_model(stand_ins.PeftModel(given))
    width = model.site_width(hs.Component.parse("head.1.2").site) // 4

    def zero(module: Any, inputs: Any) -> Any:
        states = inputs[0].clone()
        states[:, -1, 2 * width : 3 * width] = 0
        return (states,)

    results = hs.sweep(model, TOKENS, hs.Zero(), ablate="head.1.2")
    for index, ids in enumerate(TOKENS):
        with torch.no_grad():
            clean = given(torch.tensor([ids])).logits[0, -1]
            handle = given.model.layers[1].self_attn.o_proj.register_forward_pre_hook(zero)
            ablated = given(torch.tensor([ids])).logits[0, -1]
            handle.remove()
        target = int(clean.argmax())
        centred = [float(each[target] - each.mean()) for each in (clean, ablated)]
        assert float(results["total"][0, index, 0, 0]) == pytest.approx(centred[1] - centred[0], abs=1e-6)


def test_the_adapters_that_the_model_uses_are_merged_and_no_others() -> None:
    """Merged ones aren't merged twice; disabled ones aren't merged, and are taken out if they were."""
    for change in ("merged", "disabled", "both"):
        given = stand_ins.with_adapters(hf())
        expected = merged(given) if change == "merged" else hf()
        for layer in given.modules():
            if isinstance(layer, stand_ins.LoraLinear):
                layer.disable_adapters = change != "merged"
                if change != "disabled":
                    layer.merge()
        model = require_same(stand_ins.PeftModel(given), expected, atol=1e-5 if change == "both" else 0.0)
        assert model.change == ("adapter merged" if change == "merged" else "")


def test_a_module_that_was_trained_as_a_whole_is_taken() -> None:
    given, expected = hf(), hf()
    given.lm_head = stand_ins.ModulesToSaveWrapper(given.lm_head)
    with torch.no_grad():
        given.lm_head.trained.weight[3] += 1
        expected.lm_head.weight[3] += 1
    require_same(stand_ins.PeftModel(given), expected)
    given.lm_head.disable_adapters = True
    require_same(stand_ins.PeftModel(given), hf())


def test_adapters_that_cannot_be_merged_are_refused() -> None:
    with pytest.raises(HydrascopeError, match=r"the adapter \(PROMPT_TUNING\) adds tokens to the prompt"):
        hs.load_model(stand_ins.PeftModel(hf(), prompt=True))
    with pytest.raises(HydrascopeError, match="this PeftModel computes other logits than the transformers model"):
        hs.load_model(stand_ins.PeftModel(stand_ins.with_adapters(hf()), shift=0.1))


def never(*arguments: Any, **keywords: Any) -> Any:
    raise AssertionError("a compiled function was called")


def test_a_compiled_model_runs_without_being_compiled() -> None:
    given = hf()
    model = require_same(torch.compile(given, backend=never), hf())
    assert model.hf is given


@pytest.mark.parametrize("how", ["in place", "wrapped", "forward"])
def test_compiled_blocks_run_without_being_compiled(how: str) -> None:
    given = hf()
    if how == "forward":
        given.forward = torch.compile(given.forward, backend=never)
    for number, block in enumerate(given.model.layers):
        if how == "in place":
            block.compile(backend=never)
        elif how == "wrapped":
            given.model.layers[number] = torch.compile(block, backend=never)
    before = state(given)
    model = require_same(given, hf())
    require_unchanged(given, before)
    assert model.change == ""
    assert model.revision == hs.load_model(hf()).revision


def test_wrappers_around_wrappers_are_taken_off_one_by_one() -> None:
    given = stand_ins.with_adapters(hf())
    tokenizer = tiny_tokenizer()
    wrapped = stand_ins.Envoy(torch.compile(stand_ins.PeftModel(given), backend=never), tokenizer)
    model = require_same(wrapped, merged(given))
    assert (model.change, model.tokenizer) == ("adapter merged", tokenizer)


def test_hooks_of_the_user_are_measured_and_run_on_the_copy() -> None:
    """Also a forward function that is bound to the module, as accelerate puts it there."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Doubled(ModelHook):
        def post_forward(self, module: nn.Module, output: Any) -> Any:
            return output * 2

    def changed(model: Any) -> Any:
        model.model.layers[0].mlp.up_proj.register_forward_hook(lambda module, inputs, output: output * 1.5)
        add_hook_to_module(model.model.layers[1].mlp.gate_proj, Doubled())
        return model

    given = stand_ins.with_adapters(hf())
    expected = changed(merged(given))
    changed(given)
    before = state(given)
    model = require_same(stand_ins.PeftModel(given), expected)
    hs.sweep(model, TOKENS, hs.Resample(1), ablate="heads")
    require_unchanged(given, before)
    partial = model.hf.model.layers[1].mlp.gate_proj.forward
    assert partial.args[0] is model.hf.model.layers[1].mlp.gate_proj


def test_a_hook_on_the_users_object_is_not_one_on_the_copy() -> None:
    """Nor are hydrascope's own on the user's: the two share weights alone."""
    given = stand_ins.with_adapters(hf())
    model = hs.load_model(stand_ins.PeftModel(given))
    calls: list[int] = []
    given.model.layers[0].mlp.register_forward_hook(lambda *arguments: calls.append(1))
    hs.sweep(model, TOKENS, hs.Zero(), ablate="attn")
    assert not calls


def test_weights_that_are_shared_are_seen_when_they_change() -> None:
    given = stand_ins.with_adapters(hf())
    model = hs.load_model(stand_ins.PeftModel(given))
    before = hs.sweep(model, TOKENS, hs.Zero(), ablate="attn")
    with torch.no_grad():
        given.model.embed_tokens.weight.mul_(1.1)
    after = hs.sweep(model, TOKENS, hs.Zero(), ablate="attn")
    assert after.attrs["revision"] != before.attrs["revision"]
    assert after.attrs["weights_changed"] == "adapter merged"


def test_what_holds_no_transformers_model_is_refused() -> None:
    with pytest.raises(HydrascopeError, match=r"a HookedTransformer is TransformerLens' own code.*load the original"):
        hs.load_model(stand_ins.HookedTransformer())
    for inside in (nn.Linear(2, 2), stand_ins.Envoy(nn.Linear(2, 2))):
        with pytest.raises(HydrascopeError, match=f"a {type(inside).__name__} is no transformers model: give a name"):
            hs.load_model(inside)
    remote = stand_ins.TransformerBridge(hf())
    del remote.__dict__["original_model"]
    with pytest.raises(HydrascopeError, match="this TransformerBridge holds no weights here"):
        hs.load_model(remote)
    waiting = copy.deepcopy(hf()).to("meta")
    with pytest.raises(HydrascopeError, match="is on the meta device"):
        hs.load_model(stand_ins.Envoy(waiting))


def test_merged_layers_live_as_long_as_the_copy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are known by their ids: one that dies could give its own to the next."""
    merge, made = plain_copy._merged, []

    def watched(layer: Any) -> Any:
        assert all(each() is not None for each in made)
        found = merge(layer)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(plain_copy, "_merged", watched)
    given = stand_ins.with_adapters(hf())
    plain_copy.plain_copy(given)
    assert len(made) == 9
