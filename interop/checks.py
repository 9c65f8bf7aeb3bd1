"""Make tiny random models on the spot, and compare the numbers of two models."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tiny import CONFIGS, tiny, tiny_tokenizer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

import hydrascope as hs

torch.set_num_threads(1)
# Two attributes that only other architectures read would confuse TransformerLens.
CONFIGS["gpt_neox"][1].pop("num_key_value_heads", None)

_FOLDER = TemporaryDirectory()

TOKENS = [[5, 6, 7], [9, 4, 11, 3], [20, 21, 22, 23, 24]]
NAMES = ("total", "direct", "indirect", "unembed", "unembed_ablated", "unembed_ablated_own", "logit", "scale")


def model_of(case: str) -> PreTrainedModel:
    """Return a random model in float64, the same at each call."""
    hf: PreTrainedModel = tiny(case).hf.eval()
    return hf


def tokenizer() -> Any:
    """Return a tokenizer of single characters, read from a folder, which TransformerLens reads again."""
    tiny_tokenizer().save_pretrained(_FOLDER.name)
    return AutoTokenizer.from_pretrained(_FOLDER.name)


def require_same(given: Any, expected: Any, atol: float = 0.0) -> hs.models.LanguageModel:
    """Compare what sublayers, heads and neurons of two models do, under two ablations; return the first, loaded."""
    models = [hs.load_model(each) for each in (given, expected)]
    parts = "layers,heads,neuron.1.3"
    for ablation in (hs.Zero(), hs.Resample(1)):
        found, other = (hs.sweep(each, TOKENS, ablation, ablate=parts, read=parts) for each in models)
        assert float(abs(other["total"]).max()) > 0.1
        for name in NAMES:
            np.testing.assert_allclose(found[name], other[name], rtol=0, atol=atol, err_msg=name)
    return models[0]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Require that modules, their attributes, hooks and weights are the same after the context."""

    def state() -> tuple[Any, dict[str, Any]]:
        modules = [
            (
                name,
                id(each),
                sorted(vars(each)),
                each.training,
                list(each._forward_hooks),
                list(each._forward_pre_hooks),
            )
            for name, each in model.named_modules()
        ]
        return modules, {name: value.clone() for name, value in model.state_dict().items()}

    before = state()
    yield
    after = state()
    assert after[0] == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in after[1].items())
