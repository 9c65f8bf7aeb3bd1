"""The likeliest next tokens, against plain forward passes with hooks of their own."""

import numpy as np
import pytest
import torch
from plain import exactly_normed, loaded, plain_run
from tiny import shared

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError

IDS = [5, 6, 7, 8, 9, 10]
LAST = len(IDS) - 1


def shares(model, overrides):
    return plain_run(model, IDS, overrides).logits.softmax(-1).numpy()


def require_same(found, expected):
    """Require the right tokens, probabilities, and ranks in the state before, of each state in turn."""
    for number, now in enumerate(expected):
        order = sorted(range(len(now)), key=lambda token: (-now[token], token))[:10]
        before = expected[max(number - 1, 0)]
        state = found.isel(state=number)
        assert state["token"].values.tolist() == order
        np.testing.assert_allclose(state["probability"], now[order], atol=1e-9)
        assert state["rank"].values.tolist() == [int((before > before[token]).sum()) for token in order]
    assert found["rank"].isel(state=0).values.tolist() == list(range(10))


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
@pytest.mark.parametrize("at", ["last", "all"])
def test_clean_ablated_and_frozen(case, at, engine):
    model = exactly_normed(loaded(case))
    found = hs.analyses.next_tokens(model, [IDS], "attn.0+mlp.1|mlp.0|attn.2", at=at, engine=engine)
    assert found["state"].values.tolist() == ["clean", "attn.0+mlp.1", "attn.0+mlp.1|mlp.0|attn.2"]
    places = [LAST] if at == "last" else list(range(len(IDS)))
    zeros = torch.zeros(len(places), model.width, dtype=torch.float64)
    ablated = {"attn.0": (places, zeros), "mlp.1": (places, zeros)}
    clean = plain_run(model, IDS).values
    everywhere = list(range(len(IDS)))
    frozen = {name: (everywhere, clean[name]) for name in ("mlp.0", "attn.2")}
    require_same(found, [shares(model, {}), shares(model, ablated), shares(model, {**ablated, **frozen})])
    assert (found["rank"].isel(state=1).values != np.arange(10)).any()


def test_probabilities_are_means_over_patches():
    model, others = exactly_normed(loaded("gpt2")), [[30, 31, 32], [40, 41, 42, 43], [50, 51]]
    found = hs.analyses.next_tokens(model, [IDS], "attn.1", hs.Resample(3), others=others)
    assert found.sizes["state"] == 2
    sources = [plain_run(model, ids).values["attn.1"][-1:] for ids in others]
    drawn = [shares(model, {"attn.1": ([LAST], value)}) for value in sources]
    require_same(found, [shares(model, {}), np.mean(drawn, 0)])


def test_texts_are_the_tokens():
    found = hs.analyses.next_tokens(loaded("gpt2"), "the cat", "attn.0", count=3)
    assert found.sizes == {"state": 2, "place": 3}
    model = loaded("gpt2")
    for token, text in zip(found["token"].values.ravel(), found["text"].values.ravel(), strict=True):
        assert text == model.decode(int(token))


def test_mistakes():
    with pytest.raises(HydrascopeError, match="are 6 overrides: give one"):
        hs.analyses.next_tokens(shared("gpt2"), [IDS], "layers")
    with pytest.raises(HydrascopeError, match=r"this is one prompt: give others \(--prompts\)"):
        hs.analyses.next_tokens(shared("gpt2"), [IDS], "attn.0", hs.Mean())


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_list_has_tokens(count):
    with pytest.raises(HydrascopeError, match="tokens to list: ask for at least 1"):
        hs.analyses.next_tokens(loaded("gpt2"), [IDS], "attn.0", count=count)
