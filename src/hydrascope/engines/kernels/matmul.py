"""Choose the library for matrix products by timing each on a model's shapes.

No library is always the fastest: it depends on the processor, the shape and the order in which a weight is stored.
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

#: The name of the routine for each product, by the product's name.
Routines = Mapping[str, str]
#: A function of rows, a weight, a bias and the form of GELU.
Routine = Callable[[Tensor, Tensor, Tensor | None, str], Tensor]

#: The environment variable that forces one routine for all products with a choice.
FORCE = "HYDRASCOPE_KERNELS"

#: The number of rows to time with; more rows are hardly faster.
_ROWS = 384
#: The longest side to time; beyond it the fastest routine stays the same.
_LONGEST = 3072


@dataclass(frozen=True)
class Product:
    """A product of rows with a weight of one shape, with or without a GELU after it.

    Attributes:
        inputs: the length of a row before the product.
        outputs: the length of a row after the product.
        transposed: whether the weight is stored as `[in, out]`, as in GPT-2, instead of `[out, in]`.
        gelu: PyTorch's name for the form of the GELU that follows, `none` or `tanh`; empty without a GELU.
    """

    inputs: int
    outputs: int
    transposed: bool
    gelu: str

    def __str__(self) -> str:
        """The name in a result, such as `768 to 3072, transposed, gelu tanh`."""
        stored = ", transposed" if self.transposed else ""
        return f"{self.inputs} to {self.outputs}{stored}" + (f", gelu {self.gelu}" if self.gelu else "")


def _matmul(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    out = multiplied(rows, weight, bias)
    return torch.ops.aten.gelu_(out, approximate=gelu) if gelu else out


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return torch.ops.aten.gelu_(out, approximate=gelu) if gelu else out


def _fused(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: str) -> Tensor:
    """Apply GELU before the product is written to memory."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "gelu" if gelu else "none", [], gelu)
    return out


#: Routines for `rows · weightᵀ + bias`, with GELU after it; the weight is `[out, in]`, stored in either order.
ROUTINES: dict[str, Routine] = {"matmul": _matmul, "onednn": _onednn, "onednn+gelu": _fused}


def choose_routines(products: Iterable[Product], dtype: torch.dtype) -> dict[str, str]:
    """Return the fastest routine for each product, on this processor with the current threads.

    Rates are measured once in a process, in a few hundredths of a second a shape.

    Raises:
        HydrascopeError: the environment names an unknown routine.
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
    """Return the routine with the highest rate."""
    return max(rates, key=lambda name: rates[name])


@functools.cache
def time_routines(product: Product, dtype: torch.dtype, threads: int) -> dict[str, float]:
    """Measure each routine's FLOP/s for a product; `threads` is the current number of threads."""
    inputs, outputs = min(product.inputs, _LONGEST), min(product.outputs, _LONGEST)
    # Zeros would be faster in some libraries, and random numbers would take longer to draw than to multiply.
    rows = torch.linspace(-1, 1, _ROWS * inputs, dtype=dtype).view(_ROWS, inputs)
    weight = torch.linspace(-1, 1, inputs * outputs, dtype=dtype)
    weight = weight.view(inputs, outputs).T if product.transposed else weight.view(outputs, inputs)
    bias = torch.ones(outputs, dtype=dtype)

    def rate(routine: Routine) -> float:
        start = time.perf_counter()
        routine(rows, weight, bias, product.gelu)
        return 2 * _ROWS * inputs * outputs / (time.perf_counter() - start)

    rates: dict[str, float] = {}
    for name, routine in ROUTINES.items():
        if name == "onednn+gelu" and not product.gelu:
            continue
        # The first call of some routines compiles code.
        routine(rows[:8], weight, bias, product.gelu)
        rates[name] = rate(routine)
    # Close rates are measured once more.
    close = [name for name in rates if rates[name] > 0.75 * max(rates.values())]
    if len(close) > 1:
        rates |= {name: max(rates[name], rate(ROUTINES[name])) for name in close}
    return rates
