"""EAP-IG: slopes averaged between two prompts' embeddings, by finite differences of whole passes."""

from importlib import import_module

import numpy as np
import pytest
import torch
from tiny import shared

import hydrascope as hs
from hydrascope.engines.readouts import Logit, Readouts, Tokens
from hydrascope.models.float64 import Float64Mode
from hydrascope.models.hooks import hooked, on_input, on_output

RANDOM = np.random.default_rng(5)
PROMPTS = [RANDOM.integers(3, 60, 5).tolist() for _ in range(6)]
STEP = 1e-5


def read(model, ids, direction, constant, stream, added=None) -> float:
    """π̂ of one prompt with another stream entering block 0, and `added` seen by one reader alone."""
    reader, change = added or ("", None)

    def enter(hidden):
        first = stream[None].clone()
        return first + change if reader == "attn.0" else first

    def after_attention(hidden):
        return hidden + (change if reader == "mlp.0" else -change if reader == "attn.0" else 0)

    final = []

    def hooks():
        yield on_input(model.blocks[0], enter)
        block = model.blocks[0]
        if reader:
            yield on_output(block.self_attn, after_attention)
        if reader == "mlp.0":
            yield on_output(block.mlp, lambda hidden: hidden - change)
        yield on_input(model.final_norm, lambda hidden: final.append(hidden[0, -1]))

    with torch.no_grad(), hooked(hooks()):
        model.hf.base_model(input_ids=torch.tensor([ids]), use_cache=False)
    scale = (final[0].square().mean() + model.norm_eps).sqrt()
    return float(final[0] @ direction / scale + constant)


def embedded(model, ids) -> torch.Tensor:
    return model.hf.get_input_embeddings()(torch.tensor(ids)).detach()


@pytest.mark.parametrize("reader", ["attn.0", "mlp.0"])
def test_slopes_are_averaged_from_the_patch_on(reader):
    model = shared("llama")
    with Float64Mode():
        found = hs.analyses.edges(model, PROMPTS, hs.Resample(1), sources="embed", at="all", integrated=True)
        run = hs.sweep(model, PROMPTS, hs.Resample(1), ablate="attn.0", at="all")
        for prompt in (0, 4):
            ids, source = PROMPTS[prompt], int(run["patch_prompt"].values[prompt, 0])
            target = [int(run["target"].values[prompt])]
            linear = Readouts.of(model, [Logit()], Tokens(target), [0]).rows[0]
            own, other = embedded(model, ids), embedded(model, PROMPTS[source])
            change, slopes = other - own, []
            for step in range(5):
                stream = other + step / 5 * (own - other)
                ends = [
                    read(model, ids, linear.direction[0], linear.constant[0], stream, (reader, sign * STEP * change))
                    for sign in (1, -1)
                ]
                slopes.append((ends[0] - ends[1]) / (2 * STEP))
            measured = float(found["eap_ig"].isel(readout=0, prompt=prompt).sel(source="embed", reader=reader))
            assert measured == pytest.approx(np.mean(slopes), rel=1e-4, abs=1e-6)


def test_many_steps_are_complete(monkeypatch):
    module = import_module("hydrascope.analyses.edge_slopes")
    few = hs.analyses.edges(shared("llama"), PROMPTS, hs.Resample(1), sources="embed", at="all", integrated=True)
    monkeypatch.setattr(module, "STEPS", 200)
    many = hs.analyses.edges(shared("llama"), PROMPTS, hs.Resample(1), sources="embed", at="all", integrated=True)
    assert float(many["completeness"][0]) == pytest.approx(1, abs=0.03)
    assert abs(float(few["completeness"][0]) - 1) > abs(float(many["completeness"][0]) - 1)
