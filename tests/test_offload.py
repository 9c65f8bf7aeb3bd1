"""Weights that wait in memory or on disk: every number is that of the model whose weights are on its device."""

import copy
from dataclasses import fields

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from as_it_was import assert_as_it_was, state
from asked import heads, neurons, request, several_readouts
from tiny import CONFIGS, save_tiny, tiny

import hydrascope as hs
from hydrascope import attribution, fingerprint
from hydrascope.engines import ENGINES, Readings
from hydrascope.loading import load_model, read_model
from hydrascope.model import LanguageModel

RUNS = ["attn.0", "mlp.1", "head.1.2", "attn.0|mlp.1", "attn.0+mlp.2"]
METRICS = ["log_prob", "kl"]


def waiting(model: LanguageModel, folder) -> LanguageModel:
    """A copy whose weights wait in memory, or on disk."""
    hf = copy.deepcopy(model.hf)
    hf = cpu_offload(hf, "cpu") if folder is None else disk_offload(hf, folder, "cpu")
    return LanguageModel(hf, name=model.name)


def assert_identical(found: Readings, expected: Readings) -> None:
    """To the bit."""
    for field in fields(Readings):
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CONFIGS)
def test_every_architecture_measures_the_same(case, dtype, engine):
    model = tiny(case, dtype)
    if engine == "wavefront" and not model.anatomy.fast:
        pytest.skip("plain forward passes alone")
    other = waiting(model, None)
    assert all(parameter.device.type == "meta" for parameter in other.hf.parameters())
    units = (*heads(model), *neurons(model))

    def found(model):
        asked = request(model, RUNS, (5, 7), "span", units=units, readouts=several_readouts(model), metrics=METRICS)
        return ENGINES[engine](model, asked)

    assert_identical(found(other), found(model))
