"""Slopes of edges: against central differences of exact edges, and of streams that a hook varies."""

from typing import Any

import numpy as np
import pytest
import torch
from asked import request, several_readouts
from plain_edges import Drawn, PlainEdges
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tiny

import hydrascope as hs
from hydrascope.analyses.attribution import reader_gradients
from hydrascope.analyses.attribution.reader_gradients import reader_slopes
from hydrascope.components.component import Component
from hydrascope.models.float64 import Float64Mode

PROMPTS = [[5, 9, 7, 11], [3, 40, 12, 8, 30, 21]]


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("gpt2", "gemma2", "cohere", "gpt_neox", "granite")))
def test_slopes_are_those_of_exact_edges(case: str, at: str) -> None:
    """Compare slopes with central differences of δ, which for heads isn't linear in the patch."""
    model, step = shared(case), 1e-5
    options: dict[str, Any] = {
        "at": at,
        "sources": "embed,layers,heads.1",
        "readouts": [hs.Logit(), hs.Logit(7), hs.Direction(np.arange(32) - 9.0, before=2)],
    }
    with Float64Mode():
        there, back = (hs.analyses.edges(model, PROMPTS, Drawn(step=way * step), **options) for way in (1, -1))
        whole = hs.analyses.edges(model, PROMPTS, Drawn(), **options)["eap"].values
    edge, eap = ((there[name].values - back[name].values) / (2 * step) for name in ("edge", "eap"))
    size = abs(edge).max((1, 2, 3))[:, None, None, None]
    assert size.min() > 0.01
    heads = [str(label).startswith("head") for label in there["source"].values]
    off = float((abs(eap - edge) / size).max())
    off_whole = float((abs(whole - edge) / size)[:, :, [not each for each in heads]].max())
    # Not `>` of it, so that a NaN fails.
    assert max(off, off_whole) <= 1e-5, f"off by {off:.1e}, {off_whole:.1e}"


@pytest.mark.parametrize(
    ("name", "wrong", "case"),
    [
        ("_through_norm", lambda norm, stream, slope: slope, "cohere"),
        ("norm_before", lambda model, receiver, block: model.blocks[block].post_attention_layernorm, "gpt_neox"),
        ("wider", lambda dtype: torch.float16, "gpt2"),
    ],
    ids=["not through the norm of a parallel block", "through the other norm", "rounded"],
)
def test_a_planted_fault_is_caught(name: str, wrong: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_gradients, name, wrong)
    with pytest.raises(AssertionError, match="off by"):
        test_slopes_are_those_of_exact_edges(case, "last")


@pytest.mark.parametrize(
    "case", rest_slow(["gpt2", "llama", "gemma2", "cohere", "granite", "olmo2"], ("gemma2", "cohere"))
)
def test_slopes_of_every_position(case: str) -> None:
    """∂π̂/∂(what one sublayer alone reads), by plain passes in which its output is overwritten."""
    plain, tokens = PlainEdges(case), PROMPTS[0]
    model = plain.model
    base = request(model, ["attn.0"], (len(tokens),), "last", readouts=several_readouts(model, 1)[:3])
    step = 1e-4
    with Float64Mode():
        [slopes, *_] = reader_slopes(model, [tokens], base.readouts, model.sublayers)
        clean, target = plain.run(tokens), int(base.readouts.rows[0].tokens[0][0])
        for reader in (Component(0, "mlp"), Component(1, "attn"), Component(2, "mlp"), "logits"):
            for position in (1, len(tokens) - 1):
                delta = torch.zeros_like(clean.streams[0])
                delta[position] = torch.randn(32, generator=torch.Generator().manual_seed(position)).double()
                there, back = (plain.edge(tokens, clean, way * step * delta, str(reader)).logits for way in (1, -1))
                expected = (there[target] - there.mean() - back[target] + back.mean()) / (2 * step)
                found = (slopes[reader][0] * delta).sum()
                assert abs(float(found - expected)) <= 1e-6 * max(1.0, abs(float(expected)))


def test_only_what_a_readout_reads_has_a_slope() -> None:
    """Readouts inside the network have none above; 0, not NaN."""
    model = shared("llama")
    base = request(model, ["attn.0"], (4, 3), "last", readouts=several_readouts(model)[3:])
    found = reader_slopes(model, base.tokens, base.readouts, model.sublayers)
    for readout, slopes in zip(base.readouts.rows, found, strict=True):
        assert set(slopes) == {*model.sublayers, "logits"}
        for reader, slope in slopes.items():
            below = not isinstance(reader, str) and reader.block < readout.before
            assert bool((slope != 0).any()) == below, (readout.before, reader)


def test_positions_after_the_last_of_a_short_prompt_have_no_slope() -> None:
    model = shared("gpt2")
    base = request(model, ["attn.0"], (5, 2), "last")
    [found] = reader_slopes(model, base.tokens, base.readouts, model.sublayers)
    for slope in found.values():
        assert not slope[1, 2:].any()
        assert slope[1, :2].any()
        assert slope[0, -1].any()


def test_inputs_of_heads_have_no_estimate() -> None:
    found = hs.analyses.edges(shared("llama"), PROMPTS, hs.Zero(), readers="attn.1,query.1.0,group.1.0.key")
    estimates = found["eap"].sel(source="embed")
    assert not estimates.sel(reader="attn.1").isnull().any()
    assert estimates.sel(reader=["query.1.0", "group.1.0.key"]).isnull().all()


def test_a_model_stays_as_it_was() -> None:
    """No gradients, hooks or training mode are left behind."""
    model = tiny("gemma2")
    hs.analyses.edges(model, PROMPTS, hs.Zero())
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
    assert model.hf.training
