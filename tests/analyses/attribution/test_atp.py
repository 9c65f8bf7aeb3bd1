"""Attribution patching, against finite differences of plain forward passes, and where it must be exact."""

import numpy as np
import pytest
import torch
from asked import several_readouts
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_slow import rest_slow
from tiny import shared, tiny
from toward import PROMPTS, Toward, slope, total

import hydrascope as hs
from hydrascope.analyses.attribution import atp, atp_star, gim, integrated_gradients
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

METHODS = [atp, atp_star, integrated_gradients, gim]
PARTS = "layers,heads,neuron.1.3"


def fewer_steps(method) -> dict[str, int]:
    """Options by which integrated gradients are quick, where it isn't their number that is asked for."""
    return {"steps": 2} if method is integrated_gradients else {}


@pytest.mark.parametrize("at", ["last", "all", [-1, -2]])
@pytest.mark.parametrize(
    "case", rest_slow(["gpt2", "llama", "gpt_neox", "gemma2", "opt", "cohere"], ("gpt2", "gpt_neox", "gemma2"))
)
def test_against_finite_differences(case, at):
    model = shared(case)
    ablation = hs.Resample(2, seed=1) if at != "all" else hs.Mean()
    readouts = [hs.Logit(), hs.Logit(7), hs.Direction(np.arange(32) - 9.0, before=2)]
    options = {"ablate": PARTS, "at": at, "readouts": readouts}
    # Some architectures compute norms in float32, whatever their dtype: a wider step, and less to be had.
    step, tolerance = (1e-4, 1e-6) if case in ("gpt2", "gpt_neox", "opt") else (1e-2, 2e-3)
    expected = slope(model, ablation, step, **options)
    found = atp(model, PROMPTS, ablation, **options)["estimate"].values
    assert abs(expected).max((1, 2)).min() > 0.1
    np.testing.assert_allclose(found, expected, atol=tolerance * abs(expected).max(), rtol=0)


@pytest.mark.parametrize(("case", "parts"), [("gpt2", "mlp.1"), ("gemma2", "mlp.1"), ("gpt_neox", "attn.1,mlp.1")])
def test_exact_where_the_readout_is_linear_in_what_is_ablated(case, parts):
    model, readout = shared(case), hs.Direction(np.arange(32) - 9.0, before=2)
    options = {"ablate": parts, "at": "all", "readouts": [readout]}
    expected = total(model, hs.Mean(), **options)
    assert abs(expected).min() > 1e-3
    for method in (atp, atp_star, integrated_gradients):
        np.testing.assert_allclose(method(model, PROMPTS, hs.Mean(), **options)["estimate"], expected, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_patch_that_changes_nothing_has_no_effect(method):
    same = Toward(hs.Resample(2), 0.0)
    assert not method(shared("gemma2"), PROMPTS, same, ablate=PARTS, **fewer_steps(method))["estimate"].values.any()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=3, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 9), min_size=3, max_size=4),
    size=st.integers(1, 7),
    seed=st.integers(0, 99),
    at=st.sampled_from(["last", "all", "-2,-1"]),
)
def test_batches_make_no_difference(method, lengths, size, seed, at):
    generator = np.random.default_rng(seed)
    tokens = [generator.integers(61, size=length).tolist() for length in lengths]
    ablation = hs.Zero() if at == "all" else hs.Resample(2, seed=seed)
    options = {"ablate": "attn,heads.1", "at": at, "readouts": several_readouts(shared("gpt2"), len(tokens))[2:]}
    options |= fewer_steps(method)
    expected = method(shared("gpt2"), tokens, ablation, **options)
    found = method(shared("gpt2"), tokens, ablation, batch_size=size, **options)
    for name in ("estimate", "magnitude"):
        if name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-9 * float(abs(expected[name]).max()))
    alone = method(shared("gpt2"), tokens, ablation, **{**options, "ablate": "head.1.2"})
    np.testing.assert_allclose(alone["estimate"].sel(ablated="head.1.2"), expected["estimate"].sel(ablated="head.1.2"))


@pytest.mark.parametrize("method", METHODS)
def test_the_result_has_what_the_exact_one_has(method):
    options = {"ablate": "mlp,head.1.2", "at": -2, "readouts": [hs.Logit(), hs.Placebo(2)], "target": 7}
    exact = hs.sweep(shared("llama"), PROMPTS, hs.Resample(2), **options)
    found = method(shared("llama"), PROMPTS, hs.Resample(2), **options)
    assert found["estimate"].dims == ("readout", "prompt", "ablated")
    for name in found.coords:
        assert found[name].identical(exact[name])
    own = {key: value for key, value in found.attrs.items() if key in exact.attrs}
    assert own == {key: exact.attrs[key] for key in own}
    assert {"ablation", "patches", "seed", "positions", "readouts", "target", "ablate", "prompts_hash"} < set(own)
    assert found.attrs["method"] == method.__name__
    assert found.attrs["seconds"] > 0
    assert found["estimate"].attrs["units"] == "logits"


def test_joint_runs_are_refused():
    for label in ("attn.0+mlp.1", "attn.0|mlp.1"):
        with pytest.raises(HydrascopeError, match="name them one by one"):
            atp(shared("gpt2"), PROMPTS, ablate=[label])


class _Stopped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden):
        return hidden * 2

    @staticmethod
    def backward(ctx, slope):
        return None


class _Failing(_Stopped):
    @staticmethod
    def backward(ctx, slope):
        raise NotImplementedError("no backward pass")


@pytest.mark.parametrize("lost", [torch.no_grad(), _Stopped.apply, _Failing.apply])
@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_where_no_gradient_goes_through(part, lost):
    model = tiny("gpt2")
    module = model.blocks[1].get_submodule(part)
    forward = module.forward
    if isinstance(lost, torch.no_grad):
        module.forward = lost(forward)
    else:
        module.register_forward_pre_hook(lambda module, args: (lost(args[0]), *args[1:]))
    with pytest.raises(HydrascopeError, match=rf"no gradient goes through {part}\.1\b"):
        atp(model, PROMPTS, hs.Mean(), ablate="mlp.2")


def test_options_that_are_wrong():
    with pytest.raises(HydrascopeError, match="a batch of 0"):
        atp(shared("gpt2"), PROMPTS, hs.Zero(), batch_size=0)
    with pytest.raises(TypeError, match="metrics"):
        atp(shared("gpt2"), PROMPTS, hs.Zero(), metrics=["kl"])


@pytest.mark.parametrize("method", [atp, integrated_gradients])
def test_less_at_a_time_where_memory_runs_out(method):
    model, options = tiny("gpt2"), {"ablate": "mlp", **fewer_steps(method)}
    expected = method(model, PROMPTS, hs.Resample(2), **options)["estimate"]
    sizes = []

    def small_machine(module, args):
        sizes.append(len(args[0]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError

    model.blocks[1].register_forward_pre_hook(small_machine)
    found = method(LanguageModel(model.hf), PROMPTS, hs.Resample(2), **options)["estimate"]
    assert max(sizes) > 2
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_no_estimate(method):
    model = tiny("gpt2")
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[16] = torch.nan
    with pytest.raises(HydrascopeError, match=r"prompt 3 \(token ids 12 13 14 .*\) aren.t finite: the model overflows"):
        method(
            LanguageModel(model.hf), PROMPTS, hs.Zero(), ablate="attn", readouts=hs.Direction(np.arange(32), before=2)
        )
