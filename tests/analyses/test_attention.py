"""Attention of heads before and after an ablation, against plain forward passes with hooks of their own."""

import numpy as np
import pytest
import torch
from plain import loaded, plain_run
from tiny import shared

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError

IDS = [5, 6, 7, 8, 9, 10]
LAST = len(IDS) - 1
EVERYWHERE = list(range(len(IDS)))


def eager(model, overrides=None):
    """`[block, head, token]`, by transformers' own eager attention, of the last token."""
    model.hf.set_attn_implementation("eager")
    kept = []
    handles = [
        model.attention(block).register_forward_hook(lambda module, inputs, output: kept.append(output[1][0, :, -1]))
        for block in range(len(model.blocks))
    ]
    plain_run(model, IDS, overrides)
    for handle in handles:
        handle.remove()
    return torch.stack(kept).numpy()


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
@pytest.mark.parametrize("at", ["last", "all"])
def test_clean_ablated_and_frozen(case, at, engine):
    model = loaded(case)
    run, heads = "attn.0+mlp.1|mlp.0", "heads.2,head.1.3"
    found = hs.analyses.attention(model, [IDS], run, heads, at=at, engine=engine)
    assert found["attention"].dims == ("state", "head", "token")
    assert found["state"].values.tolist() == ["clean", "attn.0+mlp.1", run]
    assert found["head"].values.tolist() == ["head.2.0", "head.2.1", "head.2.2", "head.2.3", "head.1.3"]
    assert found["token_id"].values.tolist() == IDS
    assert found["token_text"].values.tolist() == [model.decode(token) for token in IDS]
    assert "attention_patches" not in found
    places = [LAST] if at == "last" else EVERYWHERE
    zeros = torch.zeros(len(places), model.width, dtype=torch.float64)
    ablated = {"attn.0": (places, zeros), "mlp.1": (places, zeros)}
    frozen = {"mlp.0": (EVERYWHERE, plain_run(model, IDS).values["mlp.0"])}
    for state, overrides in enumerate([{}, ablated, {**ablated, **frozen}]):
        expected = eager(model, overrides)
        np.testing.assert_allclose(found["attention"][state], [*expected[2], expected[1, 3]], atol=1e-5)
    np.testing.assert_allclose(found["attention"].sum("token"), 1)
    assert np.abs(np.diff(found["attention"], axis=0)).max((1, 2)).min() > 1e-3


def test_means_over_patches_and_each_patch():
    model, others = loaded("gpt2"), [[30, 31, 32], [40, 41, 42, 43], [50, 51]]
    found = hs.analyses.attention(model, [IDS], "head.0.2", "head.1.1", hs.Resample(3), others=others)
    sources = [plain_run(model, ids, units=["head.0.2"]).values["head.0.2"][-1:] for ids in others]
    drawn = np.array([eager(model, {"head.0.2": ([LAST], value)})[1, 1] for value in sources])
    np.testing.assert_allclose(found["attention"].sel(state="head.0.2", head="head.1.1"), drawn.mean(0), atol=1e-6)
    patches = found["attention_patches"].sel(head="head.1.1").transpose("state", "patch", "token")
    np.testing.assert_allclose(sorted(patches[1].values.tolist()), sorted(drawn.tolist()), atol=1e-6)
    np.testing.assert_allclose(patches[0], np.tile(eager(model)[1, 1], (3, 1)), atol=1e-6)


def test_a_head_that_is_ablated_or_frozen_has_weights_all_the_same():
    model = loaded("llama")
    found = hs.analyses.attention(model, [IDS], "attn.0|head.1.0", "heads.0-1")
    np.testing.assert_allclose(found["attention"][1, :4], found["attention"][0, :4])
    np.testing.assert_allclose(found["attention"][2], found["attention"][1])
    assert np.abs(found["attention"][1, 4] - found["attention"][0, 4]).max() > 1e-3


def test_frozen_queries_and_keys_keep_the_pattern():
    found = hs.analyses.attention(loaded("llama"), [IDS], "attn.0|query.1.2|key.1.2", "heads.1")
    states = found["attention"].values
    np.testing.assert_allclose(states[2, 2], states[0, 2], atol=1e-12)
    np.testing.assert_allclose(states[2, [0, 1, 3]], states[1, [0, 1, 3]], atol=1e-12)


def test_with_a_sink_weights_sum_to_less_than_one():
    found = hs.analyses.attention(shared("gpt_oss"), [IDS], "attn.0", "heads")
    assert (found["attention"].sum("token") < 0.999).all()


def test_mistakes():
    model = shared("gpt2")
    with pytest.raises(HydrascopeError, match="are 6 overrides: give one"):
        hs.analyses.attention(model, [IDS], "layers", "heads.1")
    with pytest.raises(HydrascopeError, match=r"attn\.1 has no attention of its own: name heads, as heads\.3"):
        hs.analyses.attention(model, [IDS], "attn.0", "head.1.1,attn.1")
    with pytest.raises(HydrascopeError, match=r"has no head\.1\.9"):
        hs.analyses.attention(model, [IDS], "attn.0", "head.1.9")
    with pytest.raises(HydrascopeError, match=r"this is one prompt: give others \(--prompts\)"):
        hs.analyses.attention(model, [IDS], "attn.0", "heads.1", hs.Mean())
