"""Gradients of activations, by autograd on the model itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hydrascope.models.hooks import without_backward_hooks
from hydrascope.models.language_model import LanguageModel


def start_graph(hidden: Tensor) -> Tensor:
    """Return `hidden` as the start of a graph."""
    return hidden.detach().requires_grad_()


@contextmanager
def with_gradients(model: LanguageModel) -> Iterator[None]:
    """Run the model as in `model.measuring`, with gradients of activations but not of weights."""
    # By name: an offloaded weight is another object after its module has run.
    trained = [name for name, parameter in model.hf.named_parameters() if parameter.requires_grad]
    try:
        for name in trained:
            model.hf.get_parameter(name).requires_grad_(False)
        with model.measuring(), without_backward_hooks(model.hf), torch.enable_grad():
            yield
    finally:
        for name in trained:
            model.hf.get_parameter(name).requires_grad_(True)
