"""A model is the user's: whatever is measured on it, and whatever goes wrong meanwhile, it comes back as it was."""

from dataclasses import replace

import pytest
import torch
from as_it_was import assert_as_it_was, state, users_own
from asked import assert_same, heads, neurons, request
from tiny import tiny
from torch import nn

from hydrascope.engines import ENGINES, reference, wavefront
from hydrascope.engines.attention import attending
from hydrascope.engines.kernels.matmul import ROUTINES
from hydrascope.engines.kernels.patching import fast_kernels, fastest_routines, products
from hydrascope.utils.errors import HydrascopeError

CASES = ["gpt2", "llama", "gemma2", "opt", "qwen3_moe"]
RUNS = ["attn.0", "head.1.2", "mlp.1", "attn.0|mlp.1"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_measuring_leaves_nothing_behind(case, dtype, engine):
    model = users_own(case, dtype)
    before = state(model)
    ENGINES[engine](model, request(model, RUNS, (5,), "middle", units=heads(model), metrics=["kl"]))
    assert_as_it_was(model, before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_nor_does_an_error(case, engine):
    """In drawing patches, in a metric, in the middle of a forward pass, and at the very last module."""
    model = users_own(case)
    before = state(model)
    asked = request(model, RUNS, (5,), "middle", units=heads(model))

    def no_patch(component):
        raise KeyError(component)

    def no_metric(logits, clean, target):
        raise ZeroDivisionError

    with pytest.raises(KeyError):
        ENGINES[engine](model, replace(asked, values=no_patch))
    with pytest.raises(HydrascopeError, match="no_metric fails"):
        ENGINES[engine](model, request(model, RUNS, (5,), metrics=[no_metric]))
    for module in (model.blocks[1], model.final_norm):
        calls = []

        def second_call_fails(module, args, calls=calls):
            calls.append(module)
            if len(calls) > 1:
                raise RuntimeError("a pipe burst")

        handle = module.register_forward_pre_hook(second_call_fails)
        with pytest.raises(RuntimeError, match="a pipe burst"):
            ENGINES[engine](model, asked)
        handle.remove()
    assert_as_it_was(model, before)


def test_training_makes_no_difference():
    """Dropout is off while anything is measured, and no graph is kept."""
    model = tiny("gpt2")
    model.hf.eval()
    asked = request(model, RUNS, (5, 3))
    expected = wavefront.measure(model, asked)
    model.hf.train()
    for engine in (wavefront, reference):
        found = engine.measure(model, asked)
        assert not found.logit_ablated.requires_grad
        assert_same(found, expected, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("part", ["mlp", "mlp.c_fc", "mlp.act", "mlp.c_proj", "attn.c_attn"])
def test_what_a_user_s_hook_does_counts(part, dtype):
    """It is part of the model: both engines see it, and it sees what the module gives, fused kernels or not."""
    model = tiny("gpt2", dtype)
    asked = request(model, RUNS, (5, 3))
    before = wavefront.measure(model, asked)
    model.blocks[1].get_submodule(part).register_forward_hook(lambda module, args, output: 2 * output)
    after = wavefront.measure(model, asked)
    assert_same(after, reference.measure(model, asked), 1e-9 if dtype == torch.float64 else 1e-4)
    assert float((after.logit - before.logit).abs().max()) > 1e-3


def own_forward(module: nn.Module, calls: list) -> None:
    """As accelerate does it: the instance's `forward` calls the class's."""
    original = module.forward

    def forward(*args, **kwargs):
        calls.append(module)
        return original(*args, **kwargs)

    module.forward = forward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox", "opt", "gemma2"])
def test_a_forward_of_the_user_s_own_survives_and_is_called(case, dtype):
    model = tiny(case, dtype)
    asked = request(model, RUNS, (5, 3))
    expected = wavefront.measure(model, asked)
    calls: list[nn.Module] = []
    leaves = [module for module in model.blocks[1].modules() if not list(module.children())]
    for module in leaves:
        own_forward(module, calls)
    before = state(model)
    found = wavefront.measure(model, asked)
    assert_as_it_was(model, before)
    # Norms and dropout are nobody's to replace.
    replaceable = {
        m for m in leaves if isinstance(m, nn.Linear) or "Conv1D" in type(m).__name__ or "Act" in type(m).__name__
    }
    assert replaceable <= set(calls)
    assert_same(found, expected, 1e-9 if dtype == torch.float64 and case != "gemma2" else 1e-4)


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "phi", "starcoder2", "gemma2", "llama", "nemotron", "opt"])
@pytest.mark.parametrize("routine", ROUTINES)
def test_fast_kernels_compute_the_same(case, routine):
    model = tiny(case, torch.float32)
    ids = torch.randint(61, (2, 7), generator=torch.Generator().manual_seed(0))
    with model.measuring():
        expected = model.hf(ids).logits
        with fast_kernels(model, {str(product): routine for product in products(model)}):
            replaced = [module for module in model.hf.modules() if "forward" in vars(module)]
            found = model.hf(ids).logits
    if torch.backends.mkldnn.is_available():
        assert replaced
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_attention_is_the_model_s_own_again_after_an_error():
    model = tiny("llama")
    before = state(model)
    with pytest.raises(ZeroDivisionError), attending(model, lambda *args, **kwargs: 1 / 0):
        model.hf(torch.tensor([[5, 6]]))
    with pytest.raises(ZeroDivisionError), fast_kernels(model, fastest_routines(model)):
        raise ZeroDivisionError
    assert_as_it_was(model, before)


def test_neurons_too():
    model = users_own("gpt2", torch.float32)
    before = state(model)
    wavefront.measure(model, request(model, [f"{neuron}" for neuron in neurons(model)], (5,), units=neurons(model)))
    assert_as_it_was(model, before)
