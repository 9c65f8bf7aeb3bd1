"""The machine: what it is, and how fast it multiplies matrices."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from hydrascope.engines.kernels import _keep_freed_memory

#: Rows and columns of the large product: big enough that a larger one is no faster.
LARGE = 4096

#: What decides the figures besides the hardware.
PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "hydrascope")


def description() -> dict[str, str]:
    """Processor, cores, memory, system and versions, as a reader needs them to compare; no names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _processor() -> str:
    """The processor's model, family and widest vector instructions, as Linux tells them."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    flags = facts.get("flags", "").split()
    vectors = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    model = f"{facts.get('model name', platform.processor())}"
    return f"{model} (family {facts.get('cpu family')}, model {facts.get('model')}; {', '.join(vectors)})"


def sustained(work: Callable[[], object], seconds: float) -> float:
    """How often `work` is done in a second, over at least `seconds` of doing nothing else."""
    work()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        work()
        done += 1
    return done / elapsed


#: Both of PyTorch's libraries for products in float32, of rows `[row, in]` with weights `[out, in]`.
LIBRARIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "torch.matmul": lambda rows, weight: torch.matmul(rows, weight.T),
    "oneDNN": lambda rows, weight: torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], ""),
}


@dataclass
class Rate:
    """The float32 rate of a large square product, measured again and again; in FLOP/s, a multiply-add being two.

    Of the two libraries now one is faster, now the other; the machine's rate is the better one's.

    Attributes:
        measured: by library, every measurement, each sustained.
    """

    measured: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIBRARIES})

    def measure(self, seconds: float = 2.0) -> float:
        """Measure both libraries once more; the better one's rate."""
        # As it is for hydrascope: results of 64 MB go into memory that is there.
        _keep_freed_memory()
        left, right = torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE)
        for name, multiply in LIBRARIES.items():
            times = sustained(partial(multiply, left, right), seconds)
            self.measured[name].append(2 * LARGE**3 * times)
        return max(rates[-1] for rates in self.measured.values())

    @property
    def best(self) -> float:
        """The best sustained rate of either: what the machine can do, and what shares are of."""
        return max(rate for rates in self.measured.values() for rate in rates)
