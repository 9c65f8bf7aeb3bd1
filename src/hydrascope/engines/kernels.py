"""The same functions by faster kernels: what a sweep's many rows make worth while, up to rounding."""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, GELUActivation, GELUTanh, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from hydrascope.model import LanguageModel
from hydrascope.projection import weight_of

Forward = Callable[[Tensor], Tensor]

#: The form of GELU that each of transformers' modules computes, by PyTorch's name for it. Some are written as several
#: tensor operations there.
_GELU_FORMS: dict[type[nn.Module], str] = {
    NewGELUActivation: "tanh",
    FastGELUActivation: "tanh",
    GELUTanh: "tanh",
    GELUActivation: "none",
}


@contextmanager
def fast_kernels(model: LanguageModel) -> Iterator[None]:
    """Let `model` multiply by the faster library, and compute GELU within the product before it or in one operation."""
    _keep_freed_memory()
    forwards: dict[nn.Module, Forward] = {}
    for module in model.hf.modules():
        if "forward" in vars(module):
            continue  # somebody's own already, as accelerate's: it stays
        if type(module) in (nn.Linear, Conv1D) and _one_dnn_multiplies(module.weight):
            forwards.setdefault(module, _product(module, "none", ""))
        elif form := _GELU_FORMS.get(type(module)):
            # In place: the input is the output of the projection before, which nothing else reads.
            forwards.setdefault(module, functools.partial(torch.ops.aten.gelu_, approximate=form))
        elif pair := _widening_and_gelu(module):
            widening, gelu = pair
            forwards[widening] = _product(widening, "gelu", _GELU_FORMS[type(gelu)])
            forwards[gelu] = nn.Identity().forward
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _widening_and_gelu(module: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The projection of a plain MLP that GELU follows: the one of its own that widens. Gated MLPs have two."""
    children = list(module.children())
    gelus = [child for child in children if type(child) in _GELU_FORMS]
    linears = [child for child in children if type(child) in (nn.Linear, Conv1D)]
    widening = [linear for linear in linears if weight_of(linear).shape[0] > weight_of(linear).shape[1]]
    if len(gelus) == len(widening) == 1 and len(linears) == 2 and _one_dnn_multiplies(weight_of(widening[0])):
        pair = widening[0], gelus[0]
        return None if any(map(_is_watched, pair)) else pair
    return None


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody's own code sees what the module is given or gives: it must compute that, and nothing else."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def _one_dnn_multiplies(weight: Tensor) -> bool:
    """Whether oneDNN can multiply by `weight`: PyTorch asks another library for float32, on many CPUs a slower one."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and weight.device.type == "cpu" and weight.dtype in _dtypes()


@functools.cache
def _dtypes() -> tuple[torch.dtype, ...]:
    """What oneDNN computes in on this processor: bfloat16 needs instructions that not all have."""
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


def _product(linear: nn.Module, activation: str, form: str) -> Forward:
    """`linear` by oneDNN, and then `activation` before anything is written to memory."""
    weight, bias = weight_of(linear), linear.bias

    def forward(hidden: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, activation, [], form)

    return forward


@functools.cache
def _keep_freed_memory() -> None:
    """Ask glibc to reuse the memory of freed tensors instead of returning it to the system.

    Every layer allocates tensors of tens of megabytes. By default glibc maps each one afresh and unmaps it when it
    is freed, and the system then clears every page of the next, which costs a sweep dearly.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
