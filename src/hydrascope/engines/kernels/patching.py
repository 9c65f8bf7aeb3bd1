"""Replace a model's products and GELUs by faster kernels that are equal up to rounding."""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, GELUActivation, GELUTanh, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from hydrascope.engines.kernels.matmul import ROUTINES, Product, Routines, choose_routines
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.offload import compute_device
from hydrascope.models.projection import weight_of

Forward = Callable[[Tensor], Tensor]

_CPU = torch.device("cpu")

#: PyTorch's name for the form of GELU that each module of transformers computes. Some of these modules use several
#: tensor operations.
_GELU_FORMS: dict[type[nn.Module], str] = {
    NewGELUActivation: "tanh",
    FastGELUActivation: "tanh",
    GELUTanh: "tanh",
    GELUActivation: "none",
}


@contextmanager
def fast_kernels(model: LanguageModel, routines: Routines) -> Iterator[None]:
    """Let `model` multiply by `routines`, and compute GELU in one operation or with its product.

    Args:
        model: the language model.
        routines: a routine for each of `products(model)`.
    """
    keep_freed_memory()
    forwards: dict[nn.Module, Forward] = {}
    for linear, (product, gelu) in products_by_module(model).items():
        forwards[linear] = _product(linear, product, routines)
        if gelu is not None:
            forwards[gelu] = nn.Identity().forward
    for module in model.hf.modules():
        if module not in forwards and forward_attribute(module) and (in_place := gelu_in_place(module)):
            forwards[module] = in_place
    with ExitStack() as stack:
        for module, forward in forwards.items():
            stack.enter_context(replaced(module, forward))
        yield


def gelu_in_place(module: nn.Module) -> Forward | None:
    """Return the GELU of a module as one operation in place; None for other modules.

    Nothing else reads the input, which is the output of the projection before.
    """
    form = _GELU_FORMS.get(type(module))
    return functools.partial(torch.ops.aten.gelu_, approximate=form) if form else None


@contextmanager
def replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Let `module` compute by `forward`."""
    name = forward_attribute(module)
    assert name is not None
    before = vars(module).get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


def forward_attribute(module: nn.Module) -> str | None:
    """Return the attribute to replace in `module`, or None if its `forward` was customised."""
    if "forward" not in vars(module):
        return "forward"
    # accelerate's `forward` fetches the weights and calls `_old_forward`.
    wrapped = vars(module).get("_old_forward")
    return "_old_forward" if getattr(wrapped, "__func__", None) is type(module).forward else None


def fastest_routines(model: LanguageModel) -> dict[str, str]:
    """Return the fastest routine for each of the model's products, measured once in a process.

    Raises:
        HydrascopeError: the environment names an unknown routine.
    """
    keep_freed_memory()
    return choose_routines(products(model), model.dtype)


def products(model: LanguageModel) -> set[Product]:
    """Return the products of `model` that PyTorch has more than one library for."""
    return {product for product, _ in products_by_module(model).values()}


def products_by_module(model: LanguageModel) -> dict[nn.Module, tuple[Product, nn.Module | None]]:
    """Return the product of each module that multiplies, with the GELU to fuse with it, if any."""
    free = [module for module in model.hf.modules() if forward_attribute(module)]
    linears = [m for m in free if type(m) in (nn.Linear, Conv1D) and is_choice(m.weight.dtype, compute_device(m))]
    pairs = dict(pair for module in free if (pair := _projection_and_gelu(module, model.width)))
    by_module: dict[nn.Module, tuple[Product, nn.Module | None]] = {}
    for linear in linears:
        (outputs, inputs), gelu = weight_of(linear).shape, pairs.get(linear)
        form = "" if gelu is None else _GELU_FORMS[type(gelu)]
        by_module[linear] = Product(inputs, outputs, not weight_of(linear).is_contiguous(), form), gelu
    return by_module


def _projection_and_gelu(module: nn.Module, width: int) -> tuple[nn.Module, nn.Module] | None:
    """Return a plain MLP's first projection, of `width` numbers, and the GELU after it.

    It is None for other modules. A gated MLP has two such projections, or one to both of its halves (Phi-3), of which
    GELU takes one.
    """
    children = list(module.children())
    gelus = [child for child in children if type(child) in _GELU_FORMS]
    linears = [child for child in children if type(child) in (nn.Linear, Conv1D)]
    if len(gelus) != 1 or len(linears) != 2:
        return None
    first = [linear for linear in linears if weight_of(linear).shape[1] == width]
    last = [linear for linear in linears if weight_of(linear).shape[0] == width]
    # If the MLP is as wide as the residual stream, both read and write that many.
    if len(first) != 1 or len(last) != 1 or weight_of(last[0]).shape[1] != weight_of(first[0]).shape[0]:
        return None
    pair = first[0], gelus[0]
    return None if any(map(_is_watched, pair)) else pair


def _is_watched(module: nn.Module) -> bool:
    """Whether custom code or a hook sees the module's input or output, so it can't be fused."""
    return forward_attribute(module) is None or bool(module._forward_hooks or module._forward_pre_hooks)


def is_choice(dtype: torch.dtype, device: torch.device = _CPU) -> bool:
    """Whether PyTorch has two libraries that can multiply numbers of `dtype` on `device`."""
    mkldnn: Any = torch.backends.mkldnn
    has_onednn = mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_onednn and device.type == "cpu" and dtype in _dtypes()


@functools.cache
def _dtypes() -> tuple[torch.dtype, ...]:
    """Return the dtypes of oneDNN on this processor; not every processor supports bfloat16."""
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


def _product(linear: nn.Module, product: Product, routines: Routines) -> Forward:
    """Return a forward function of `linear`, and of the GELU fused with it, by its routine."""
    routine = ROUTINES[routines[str(product)]]
    # The weight is looked up in each call, since offloaded weights exist only during a call.
    return lambda hidden: routine(hidden, weight_of(linear), linear.bias, product.gelu)  # type: ignore[arg-type]


@functools.cache
def keep_freed_memory() -> None:
    """Ask glibc to reuse the memory of freed tensors instead of returning it to the system.

    Every sublayer allocates tensors of tens of megabytes. By default glibc maps and unmaps each one, and the system
    then clears every page of the next one, which takes much of a sweep's time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
