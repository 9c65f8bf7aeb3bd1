"""The model is the user's: it comes back as it was, gradients and all, whatever happens."""

import pytest
import torch
from as_it_was import assert_as_it_was, state, users_own
from rest_slow import rest_slow
from toward import PROMPTS

import hydrascope as hs
from hydrascope.analyses.attribution import atp, atp_star, gim, integrated_gradients

METHODS = [atp, atp_star, integrated_gradients, gim]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama", "gemma2"], ("gemma2",)))
def test_nothing_is_left_behind(case, method):
    model = users_own(case)
    for parameter in model.hf.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state(model)
    found = method(model, PROMPTS, hs.Zero(), ablate="attn,head.1.2")
    assert_as_it_was(model, before)
    assert all(bool((parameter.grad == 1).all()) for parameter in model.hf.parameters())
    with torch.no_grad():
        again = method(model, PROMPTS, hs.Zero(), ablate="attn,head.1.2")
    assert (again["estimate"] == found["estimate"]).all()


@pytest.mark.parametrize("method", METHODS)
def test_nor_by_an_error(method):
    model = users_own("gpt2")
    before = state(model)
    for at in range(4):
        calls = []

        def fails(module, args, at=at, calls=calls):
            calls.append(module)
            if len(calls) > at:
                raise RuntimeError("a pipe burst")

        handle = model.blocks[1].register_forward_pre_hook(fails)
        with pytest.raises(RuntimeError, match="a pipe burst"):
            method(model, PROMPTS, hs.Zero(), ablate="attn,head.1.2", batch_size=1)
        handle.remove()
        assert_as_it_was(model, before)
