"""Fetch weights of models that are larger than the device.

accelerate keeps such weights in memory or on disk, and its hooks fetch them for a module's forward pass. All rows of a
batch pass a module together, so each weight is fetched once for a batch. Between passes the weights are on the meta
device, where they have a shape and a dtype but no numbers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor, nn


def fetch(module: nn.Module, name: str = "weight") -> Tensor | None:
    """Return a parameter or buffer of `module`; fetch it if offloaded; None if there is none."""
    value: Tensor | None = getattr(module, name, None)
    if value is None or value.device.type != "meta" or not has_offloaded_params(module):
        return value
    with align_module_device(module):
        fetched: Tensor = getattr(module, name)
        return fetched


def named_tensors(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and numbers of a model's stored parameters and buffers."""
    for path, value in sorted(hf.state_dict().items()):
        parent, _, name = path.rpartition(".")
        fetched = fetch(hf.get_submodule(parent), name)
        yield path, value if fetched is None else fetched


def compute_device(module: nn.Module) -> torch.device:
    """Return the device that `module` computes on."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(module.parameters()).device if device is None else torch.device(device)
