"""Models larger than the device: weights that are in memory or on disk, and fetched while their module runs.

All rows of a batch pass a module together, so each weight is fetched once a batch. accelerate does it: its hooks stand
around a module's forward pass. While a module doesn't run, its weights are on the meta device, where they have a shape
and a dtype and no numbers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor, nn


def fetch(module: nn.Module, name: str = "weight") -> Tensor | None:
    """The numbers of a parameter or buffer of `module`, fetched if they are elsewhere; None where it has none."""
    value: Tensor | None = getattr(module, name, None)
    if value is None or value.device.type != "meta" or not has_offloaded_params(module):
        return value
    with align_module_device(module):
        return getattr(module, name)


def named_tensors(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """The name and the numbers of every parameter and buffer of a model that is stored with it, one at a time."""
    for path, value in sorted(hf.state_dict().items()):
        parent, _, name = path.rpartition(".")
        found = fetch(hf.get_submodule(parent), name)
        yield path, value if found is None else found


def compute_device(module: nn.Module) -> torch.device:
    """The device that `module` computes on."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(module.parameters()).device if device is None else torch.device(device)
