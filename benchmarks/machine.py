"""The machine: what it is, and how fast it multiplies matrices."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from hydrascope.engines.kernels.hardware import memory, processor, rate
from hydrascope.engines.kernels.patching import keep_freed_memory

#: Rows and columns of the large product: big enough that a larger one is no faster.
LARGE = 4096

#: What decides the figures besides the hardware.
PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "hydrascope")

#: Both of PyTorch's libraries for products in float32, and hydrascope's names for them.
LIBRARIES = {"torch.matmul": "matmul", "oneDNN": "onednn"}


def description() -> dict[str, str]:
    """Processor, cores, memory, system and versions, as a reader needs them to compare; no names."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory():.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
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
        keep_freed_memory()
        for name, routine in LIBRARIES.items():
            self.measured[name].append(rate(routine, LARGE, torch.float32, seconds))
        return max(rates[-1] for rates in self.measured.values())

    @property
    def best(self) -> float:
        """The best sustained rate of either: what the machine can do, and what shares are of."""
        return max(rate for rates in self.measured.values() for rate in rates)
