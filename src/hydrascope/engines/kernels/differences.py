"""Multiply the differences of a sweep's rows from its clean row, with factors in bfloat16.

Row 0 of a sweep is the clean run of the same prompt. With x₀ its input of a linear layer, at the same position,

    W x + b = (W x₀ + b) + W (x − x₀).

Here the first product is computed in float32, and so are x − x₀ and the sum; the factors of the second product are
rounded to bfloat16, its sums are in float32, and PyTorch returns them in bfloat16. So every rounding error is a share
of the row's difference from the clean run, not of the whole, and where nothing differs the output is the clean row's
to the bit. Norms, softmax, attention's own products and activation functions are computed in float32, of the sum.
Experts keep their products in float32, since each multiplies rows of its own choice.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2CLS
from transformers.pytorch_utils import Conv1D

from hydrascope.engines.equal_rows import equal_to_first, write_clean
from hydrascope.engines.kernels.matmul import ROUTINES, Routine, Routines
from hydrascope.engines.kernels.patching import (
    Forward,
    forward_attribute,
    gelu_in_place,
    is_choice,
    keep_freed_memory,
    products_by_module,
    replaced,
)
from hydrascope.models.fingerprint import weight_sums
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.projection import weight_of
from hydrascope.utils.errors import HydrascopeError

#: How the products of a sweep are computed.
Products = Literal["float32", "bfloat16-differences"]

_ACTIVATIONS = tuple({each[0] if isinstance(each, tuple) else each for each in ACT2CLS.values()})


@dataclass(frozen=True)
class _Copy:
    """A weight in bfloat16.

    Attributes:
        weight: `[out, in]`, in oneDNN's own order where it multiplies bfloat16.
        exact: whether it is the weight itself.
        state: the place and version of the weight, to notice a change.
        sums: sums of the weight, to notice a change that leaves the version as it was.
    """

    weight: Tensor
    exact: bool
    state: tuple[int, int]
    sums: str


#: The copies, made once for each layer and kept as long as the layer.
_copies: WeakKeyDictionary[nn.Module, _Copy] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Parts:
    """The modules of a model's blocks that are computed otherwise on rows.

    Attributes:
        linears: the linear layers.
        activations: the activation functions.
        mixtures: the modules that send each token to experts of its own.
    """

    linears: list[nn.Module]
    activations: list[nn.Module]
    mixtures: list[nn.Module]


def require_differences(model: LanguageModel, engine: str) -> None:
    """Make sure that products of differences can be computed.

    Raises:
        HydrascopeError: the engine has no clean row beside the others, or the model isn't in float32 in the CPU's
            memory.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    if not model.anatomy.supports_wavefront:
        reason = "the wavefront engine, which computes them, does not support this model"
        raise HydrascopeError(f"no products of bfloat16-differences: {reason}: leave products at float32")
    if engine != "wavefront":
        reason = f"the {engine} engine runs each row alone: take the wavefront engine"
    elif model.dtype != torch.float32:
        reason = f"the model is in {dtype}: load it in float32"
    elif any(each.device.type != "cpu" for each in model.hf.parameters()):
        reason = "not all weights are in the CPU's memory: load the model with device='cpu' and without offload"
    else:
        return
    raise HydrascopeError(f"no products of bfloat16-differences: {reason}, or leave products at float32")


def drop_changed_copies(model: LanguageModel) -> None:
    """Forget the copies of weights that have changed since, which takes a pass over all weights."""
    for linear in _parts(model).linears:
        if linear in _copies and _copies[linear].sums != weight_sums(weight_of(linear)):
            del _copies[linear]


def weights_are_exact(model: LanguageModel) -> bool:
    """Whether bfloat16 holds every weight that multiplies differences."""
    return all(_copy_of(linear).exact for linear in _parts(model).linears)


def has_experts(model: LanguageModel) -> bool:
    """Whether some products stay in float32, those of experts."""
    return bool(_parts(model).mixtures)


def copied_bytes(model: LanguageModel) -> int:
    """Return the bytes that the copies in bfloat16 take."""
    return sum(2 * weight_of(linear).numel() for linear in _parts(model).linears)


@contextmanager
def difference_kernels(model: LanguageModel, routines: Routines, prompts: int, length: int) -> Iterator[None]:
    """Let `model` multiply differences from the clean row.

    Hidden states are `[prompt, row · suffix, width]`, and row 0 of each prompt is the clean one.
    `Projection.apply` still takes any rows, and multiplies them in float32.

    Args:
        model: the language model.
        routines: a routine for each of `products(model)`, for products in float32.
        prompts: the number of prompts.
        length: the number of tokens of a suffix.
    """
    keep_freed_memory()
    parts, shape, changes, chosen = _parts(model), _Shape(prompts, length), _Changes(), products_by_module(model)
    forwards: dict[nn.Module, Forward] = {}
    for linear in parts.linears:
        name = routines[str(chosen[linear][0])] if linear in chosen else "matmul"
        forwards[linear] = _Differences(linear, _in_float32(linear, ROUTINES[name]), shape, changes)
    for module in parts.activations:
        forwards[module] = partial(_as_clean, shape, gelu_in_place(module) or module.forward)
    for module in parts.mixtures:
        forwards[module] = partial(_as_clean, shape, module.forward)
    with ExitStack() as stack:
        for module, forward in forwards.items():
            stack.enter_context(replaced(module, forward))
        yield


def _parts(model: LanguageModel) -> _Parts:
    """Return the modules that see all rows; those inside experts see some tokens only."""
    parts = _Parts([], [], [])

    def visit(module: nn.Module) -> None:
        children = list(module.children())
        if any(map(_is_experts, children)):
            if forward_attribute(module):
                parts.mixtures.append(module)
            children = [child for child in children if not _is_experts(child)]
        if forward_attribute(module) and type(module) in (nn.Linear, Conv1D):
            parts.linears.append(module)
        elif forward_attribute(module) and type(module) in _ACTIVATIONS:
            parts.activations.append(module)
        for child in children:
            visit(child)

    for block in model.blocks:
        visit(block)
    return parts


def _is_experts(module: nn.Module) -> bool:
    """Whether a module holds experts: a list of modules, or all weights as one tensor."""
    if isinstance(module, nn.ModuleList):
        return any(isinstance(each, nn.Linear) for each in module.modules())
    return any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))


def _in_float32(linear: nn.Module, routine: Routine) -> Forward:
    # GELU, which some routines fuse with the product, waits for the sum.
    return lambda hidden: routine(hidden, weight_of(linear), linear.bias, "")  # type: ignore[arg-type]


def _copy_of(linear: nn.Module) -> _Copy:
    weight: Any = linear.weight
    kept, state = _copies.get(linear), (weight.data_ptr(), _version(weight))
    if kept is None or kept.state != state:
        ours = weight_of(linear).detach()
        narrow = ours.bfloat16().contiguous()
        exact = torch.equal(narrow.float(), ours)
        if is_choice(torch.bfloat16):
            narrow = torch.ops.mkldnn._reorder_linear_weight(narrow)
        kept = _copies[linear] = _Copy(narrow, exact, state, weight_sums(ours))
    return kept


def _version(tensor: Tensor) -> int:
    """Return the number of changes in place; 0 for tensors of inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _multiply(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows · weightᵀ in bfloat16, with sums in float32."""
    if weight.is_mkldnn:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
        return out
    return nn.functional.linear(rows, weight)


@dataclass(frozen=True)
class _Shape:
    """The shape of a sweep's rows."""

    prompts: int
    length: int

    def rows(self, hidden: Tensor) -> Float[Tensor, "prompt row suffix columns"]:
        """Return hidden states row by row; OPT's MLPs flatten prompts and positions."""
        return hidden.reshape(self.prompts, -1, self.length, hidden.shape[-1])


class _Changes:
    """The differences that were asked for last: queries, keys and values share them."""

    def __init__(self) -> None:
        self._hidden: Tensor | None = None
        self._version = 0
        self._changes: Tensor | None = None

    def of(self, hidden: Tensor, shape: _Shape) -> Float[Tensor, "prompt changed suffix columns"]:
        """Return x − x₀ of all rows but the clean one, in bfloat16."""
        if self._changes is None or hidden is not self._hidden or _version(hidden) != self._version:
            rows = shape.rows(hidden)
            self._hidden, self._version = hidden, _version(hidden)
            self._changes = (rows[:, 1:] - rows[:, :1]).bfloat16()
        return self._changes


class _Differences:
    """The forward function of a linear layer: the clean row in float32, others by differences.

    Attributes:
        of_any_rows: the layer in float32, for rows without a clean one.
    """

    def __init__(self, linear: nn.Module, in_float32: Forward, shape: _Shape, changes: _Changes) -> None:
        self.of_any_rows = in_float32
        self.weight = _copy_of(linear).weight
        self.shape = shape
        self.changes = changes

    def __call__(self, hidden: Tensor) -> Tensor:
        rows = self.shape.rows(hidden)
        # In one piece, so that the product is the same beside any number of rows.
        clean = self.of_any_rows(rows[:, :1].contiguous())
        out = clean.new_empty(*rows.shape[:-1], clean.shape[-1])
        out[:, :1] = clean
        if rows.shape[1] > 1:
            added = _multiply(self.changes.of(hidden, self.shape), self.weight)
            torch.add(added, clean, out=out[:, 1:])
        return out.view(*hidden.shape[:-1], out.shape[-1])


def _as_clean(shape: _Shape, forward: Callable[[Tensor], Any], hidden: Tensor) -> Any:
    """Call `forward`, and give rows that equal the clean one its output of a call alone."""
    rows = shape.rows(hidden)
    equal = equal_to_first(rows)
    # A copy: some functions work in place.
    clean = _written(forward(rows[:, 0].clone()))
    output = forward(hidden)
    write_clean(_written(output).view(*equal.shape, -1), equal, clean.view(shape.prompts, 1, shape.length, -1))
    return output


def _written(output: Any) -> Tensor:
    """Return what a module writes; mixtures of experts may return their choice as well."""
    written: Tensor = output[0] if isinstance(output, tuple) else output
    return written
