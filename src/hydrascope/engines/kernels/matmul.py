"""Which library multiplies: found by timing those there are on the shapes that a model has.

No library is the fastest everywhere: it depends on the processor, the shape, and the order in which a weight is stored.
"""

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear as multiplied

from hydrascope.utils.errors import HydrascopeError

#: By the name of a product's shape, the name of the routine that computes it.
Routines = Mapping[str, str]
Routine = Callable[[Tensor, Tensor, Tensor | None, str], Tensor]

#: The environment's variable that forces one routine wherever it can compute what is asked.
FORCE = "HYDRASCOPE_KERNELS"

#: With how many rows each is timed: so many that more are hardly faster. Where there are fewer, little is spent.
_ROWS = 384
#: Sides longer than this are timed as if they were no longer: what is faster stays so.
_LONGEST = 3072


@dataclass(frozen=True)
class Product:
    """Products of rows with weights of one shape, with a GELU after it or not.

    Attributes:
        inputs, outputs: the length of a row before and after.
        transposed: whether the weight is stored `[in, out]`, as GPT-2's are, instead of `[out, in]`.
        gelu: the form of GELU that follows, as PyTorch names it: `none` or `tanh`; empty where none does.
    """

    inputs: int
    outputs: int
    transposed: bool
    gelu: str

    def __str__(self) -> str:
        """What the shape is called in a result: `768 to 3072, transposed, gelu tanh`."""
        stored = ", transposed" if self.transposed else ""
        return f"{self.inputs} to {self.outputs}{stored}" + (f", gelu {self.gelu}" if self.gelu else "")


def _matmul(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    out = multiplied(rows, weight, bias)
    return torch.ops.aten.gelu_(out, approximate=gelu) if gelu else out


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    out = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return torch.ops.aten.gelu_(out, approximate=gelu) if gelu else out


def _fused(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    """GELU before anything is written to memory."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "gelu" if gelu else "none", [], gelu)


#: `rows · weightᵀ + bias`, and GELU after it; the weight `[out, in]`, in whichever order it is stored.
ROUTINES: dict[str, Routine] = {"matmul": _matmul, "onednn": _onednn, "onednn+gelu": _fused}


def choose_routines(products: Iterable[Product], dtype: torch.dtype) -> dict[str, str]:
    """The fastest routine for each of `products`, on this machine's processor with the threads there are now.

    What is fastest is measured once in a process, in a few hundredths of a second a shape.

    Raises:
        HydrascopeError: the environment asks for a routine that isn't there.
    """
    forced = os.environ.get(FORCE)
    if forced and forced not in ROUTINES:
        raise HydrascopeError(f"{FORCE}={forced} is no routine: set it to {', '.join(ROUTINES)}, or not at all")
    threads = torch.get_num_threads()
    return {
        str(product): forced or fastest(time_routines(product, dtype, threads))
        for product in sorted(set(products), key=str)
    }


def fastest(rates: Mapping[str, float]) -> str:
    """The routine with the highest rate."""
    return max(rates, key=lambda name: rates[name])


@functools.cache
def time_routines(product: Product, dtype: torch.dtype, threads: int) -> dict[str, float]:
    """By routine, the FLOP/s that it reaches at the shape of `product` with the `threads` that there are."""
    inputs, outputs = min(product.inputs, _LONGEST), min(product.outputs, _LONGEST)
    # Not zeros: some libraries are faster with them. Not random: drawing takes longer than multiplying.
    rows = torch.linspace(-1, 1, _ROWS * inputs, dtype=dtype).unflatten(0, (_ROWS, inputs))
    weight = torch.linspace(-1, 1, inputs * outputs, dtype=dtype)
    weight = weight.unflatten(0, (inputs, outputs)).T if product.transposed else weight.unflatten(0, (outputs, inputs))
    bias = torch.ones(outputs, dtype=dtype)

    def rate(routine: Routine) -> float:
        start = time.perf_counter()
        routine(rows, weight, bias, product.gelu)
        return 2 * _ROWS * inputs * outputs / (time.perf_counter() - start)

    found: dict[str, float] = {}
    for name, routine in ROUTINES.items():
        if name == "onednn+gelu" and not product.gelu:
            continue
        # Some compile something in the first call.
        routine(rows[:8], weight, bias, product.gelu)
        found[name] = rate(routine)
    # Where it is close, once more.
    close = [name for name in found if found[name] > 0.75 * max(found.values())]
    if len(close) > 1:
        found |= {name: max(found[name], rate(ROUTINES[name])) for name in close}
    return found
