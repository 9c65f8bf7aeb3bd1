"""The same functions by faster kernels: what a sweep's many rows make worth while, up to rounding."""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

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

#: The form of GELU that each of transformers' modules computes, by PyTorch's name for it. Some are written as several
#: tensor operations there.
_GELU_FORMS: dict[type[nn.Module], str] = {
    NewGELUActivation: "tanh",
    FastGELUActivation: "tanh",
    GELUTanh: "tanh",
    GELUActivation: "none",
}


@contextmanager
def fast_kernels(model: LanguageModel, routines: Routines) -> Iterator[None]:
    """Let `model` multiply by `routines`, and compute GELU with the product before it or in one operation.

    Args:
        routines: one for each of `products(model)`; none where no product is.
    """
    keep_freed_memory()
    forwards: dict[nn.Module, Forward] = {}
    for linear, (product, gelu) in _multiplying(model).items():
        forwards[linear] = _product(linear, product, routines)
        if gelu is not None:
            forwards[gelu] = nn.Identity().forward
    for module in model.hf.modules():
        if module not in forwards and _computing(module) and (form := _GELU_FORMS.get(type(module))):
            # In place: the input is the output of the projection before, which nothing else reads.
            forwards[module] = functools.partial(torch.ops.aten.gelu_, approximate=form)
    with ExitStack() as stack:
        for module, forward in forwards.items():
            stack.enter_context(_replaced(module, forward))
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Let `module` compute by `forward`."""
    name = _computing(module)
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


def _computing(module: nn.Module) -> str | None:
    """The attribute by which `module` computes as its class does; None where it is somebody's own code, which stays."""
    if "forward" not in vars(module):
        return "forward"
    # accelerate's own fetches the weights and calls what it found.
    found = vars(module).get("_old_forward")
    return "_old_forward" if getattr(found, "__func__", None) is type(module).forward else None


def fastest_routines(model: LanguageModel) -> dict[str, str]:
    """The fastest routine for each of the model's products that have a choice, measured once in a process.

    Raises:
        HydrascopeError: the environment asks for a routine that isn't there.
    """
    keep_freed_memory()
    return choose_routines(products(model), model.dtype)


def products(model: LanguageModel) -> set[Product]:
    """The products of `model` that there is a choice for: none where PyTorch knows of one library only."""
    return {product for product, _ in _multiplying(model).values()}


def _multiplying(model: LanguageModel) -> dict[nn.Module, tuple[Product, nn.Module | None]]:
    """The modules that multiply by a weight, what they multiply, and the GELU that is computed with it."""
    free = [module for module in model.hf.modules() if _computing(module)]
    linears = [m for m in free if type(m) in (nn.Linear, Conv1D) and is_choice(m.weight.dtype, compute_device(m))]
    pairs = dict(pair for module in free if (pair := _widening_and_gelu(module)))
    found: dict[nn.Module, tuple[Product, nn.Module | None]] = {}
    for linear in linears:
        (outputs, inputs), gelu = weight_of(linear).shape, pairs.get(linear)
        form = "" if gelu is None else _GELU_FORMS[type(gelu)]
        found[linear] = Product(inputs, outputs, not weight_of(linear).is_contiguous(), form), gelu
    return found


def _widening_and_gelu(module: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The projection of a plain MLP that GELU follows: the one of its own that widens. Gated MLPs have two."""
    children = list(module.children())
    gelus = [child for child in children if type(child) in _GELU_FORMS]
    linears = [child for child in children if type(child) in (nn.Linear, Conv1D)]
    widening = [linear for linear in linears if weight_of(linear).shape[0] > weight_of(linear).shape[1]]
    if len(gelus) == len(widening) == 1 and len(linears) == 2:
        pair = widening[0], gelus[0]
        return None if any(map(_is_watched, pair)) else pair
    return None


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody's own code sees what the module is given or gives: it must compute that, and nothing else."""
    return _computing(module) is None or bool(module._forward_hooks or module._forward_pre_hooks)


def is_choice(dtype: torch.dtype, device: torch.device = _CPU) -> bool:
    """Whether PyTorch has two libraries that can multiply numbers of `dtype` on `device`."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and device.type == "cpu" and dtype in _dtypes()


@functools.cache
def _dtypes() -> tuple[torch.dtype, ...]:
    """What oneDNN computes in on this processor: bfloat16 needs instructions that not all have."""
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


def _product(linear: nn.Module, product: Product, routines: Routines) -> Forward:
    """`linear`, and the GELU after it, by the routine chosen for it."""
    routine = ROUTINES[routines[str(product)]]
    # Looked up in each call: weights may be there no longer than that.
    return lambda hidden: routine(hidden, weight_of(linear), linear.bias, product.gelu)  # type: ignore[arg-type]


@functools.cache
def keep_freed_memory() -> None:
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
