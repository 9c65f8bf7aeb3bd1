"""Blocks taken out, reordered or repeated in place: a model is measured as it stands, whatever `layer_idx` says."""

import copy

import numpy as np
import pytest
import torch
from rest_slow import rest_slow
from tiny import tiny
from torch import nn
from transformers import PreTrainedModel

import hydrascope as hs

PROMPTS = [[5, 3, 8, 1], [2, 9], [7, 7, 1, 4, 6]]


def blocks(hf: PreTrainedModel) -> nn.ModuleList:
    return hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers


def put(hf: PreTrainedModel, order: list[int]) -> PreTrainedModel:
    """Return a copy with these blocks, as users make it: their `layer_idx` stays."""
    changed = copy.deepcopy(hf)
    kept = nn.ModuleList([blocks(changed)[place] for place in order])
    if hasattr(changed, "transformer"):
        changed.transformer.h = kept
    else:
        changed.model.layers = kept
    return changed


def rebuilt(hf: PreTrainedModel, order: list[int]) -> PreTrainedModel:
    """Return a model of as many blocks, made anew, with the weights of these blocks in this order."""
    config = copy.deepcopy(hf.config)
    setattr(config, "n_layer" if hasattr(config, "n_layer") else "num_hidden_layers", len(order))
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in order]
    made = type(hf)(config).to(hf.dtype).eval()
    made.load_state_dict(put(hf, order).state_dict())
    return made


@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama"], ("llama",)))
@pytest.mark.parametrize("order", [[0, 2], [2, 0, 1], [1]])
def test_it_is_measured_as_it_stands(case: str, order: list[int]) -> None:
    hf = tiny(case, torch.float32).hf.eval()
    found = hs.sweep(hs.load_model(put(hf, order)), PROMPTS, hs.Resample(1))
    expected = hs.sweep(hs.load_model(rebuilt(hf, order)), PROMPTS, hs.Resample(1))
    for name in ("total", "direct", "unembed", "unembed_ablated"):
        np.testing.assert_allclose(found[name].values, expected[name].values, atol=1e-5)


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_one_block_in_two_places_is_refused(case: str) -> None:
    hf = tiny(case, torch.float32).hf.eval()
    with pytest.raises(hs.HydrascopeError, match="blocks 1 and 2 are one module"):
        hs.load_model(put(hf, [0, 1, 1, 2]))
