"""Rushing & Nanda's self-repair, as their formulas give it from plain forward passes, and as its terms add up."""

import numpy as np
import pytest
import torch
from tiny import tiny

import hydrascope as hs
from hydrascope import measures
from hydrascope.models.hooks import hooked, on_input, on_site
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]


def plain(model, ids, ablated, at="last"):
    """The model's own logits, with head 1.2 zeroed or not; what the head hands on, and the final residual stream."""
    kept, columns = {}, model.columns(hs.Component(1, "head", 2))

    def zero(hidden):
        kept["value"] = hidden[..., columns].reshape(len(ids), -1)[-1].clone()
        if ablated:
            hidden = hidden.clone()
            hidden.view(1, len(ids), -1)[:, slice(None) if at == "all" else -1, columns] = 0
        return hidden

    def keep(hidden):
        kept["residual"] = hidden.reshape(len(ids), -1)[-1].clone()

    handles = [on_site(model, hs.Component(1, "head"), zero), on_input(model.final_norm, keep)]
    with model.measuring(), hooked(handles):
        return model.hf(torch.tensor([ids])).logits[0, -1], kept["value"], kept["residual"]


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
@torch.no_grad()
def test_as_their_formulas_give_it(case, at):
    """The head zeroed in the model's own forward pass; its direct effect with the clean run's final norm frozen."""
    model = tiny(case)
    results = hs.sweep(model, PROMPTS, hs.Zero(), ablate="head.1.2", read="heads", at=at)
    found = measures.self_repair(results).isel(ablated=0)
    for prompt, ids in enumerate(PROMPTS):
        clean, value, residual = plain(model, ids, False)
        changed, _, _ = plain(model, ids, True, at)
        target = int(clean.argmax())
        lost = (changed[target] - changed.mean()) - (clean[target] - clean.mean())
        # The head's direct effect: what the clean run's frozen norm and the unembedding make of what it writes.
        written = model.projection(hs.Component(1, "attn")).projected(value, 2)
        if model.anatomy.norm_kind == "layer":
            written, residual = written - written.mean(), residual - residual.mean()
        normed = written / (residual.square().mean() + model.norm_eps).sqrt() * model.final_norm.weight
        direct = model.unembedding.weight @ normed
        expected = lost + (direct[target] - direct.mean())
        np.testing.assert_allclose(float(found["self_repair"][prompt]), float(expected), atol=1e-5)


@pytest.mark.parametrize("case", ["gpt2", "gemma2", "gpt_neox"])
def test_the_terms_add_up(case):
    results = hs.sweep(tiny(case), PROMPTS, hs.Resample(2), ablate="heads", read="heads")
    found = measures.self_repair(results)
    together = found["attention"] + found["mlp"] + found["norm"]
    np.testing.assert_allclose(together, found["self_repair"], atol=1e-5)
    for part in ("attention", "mlp", "norm"):
        share = found[f"{part}_share"]
        assert bool(((share >= 0) & (share <= 1)).all())
        inside = (found[part] / found["self_repair"]).where(lambda ratio: (ratio > 0) & (ratio < 1))
        np.testing.assert_array_equal(inside.fillna(0), share.where(inside.notnull(), 0))


def test_what_it_needs():
    model = tiny("gpt2")
    with pytest.raises(HydrascopeError, match="this run ablated no heads: ablate heads"):
        measures.self_repair(hs.sweep(model, PROMPTS, hs.Zero()))
    with pytest.raises(HydrascopeError, match=r"head\.0\.1 was ablated and not read"):
        measures.self_repair(hs.sweep(model, PROMPTS, hs.Zero(), ablate="head.0.1"))
