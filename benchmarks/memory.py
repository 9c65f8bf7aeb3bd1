"""Peak memory of a whole sweep at the default batch, in a process that does nothing else."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.shapes import Shape
from benchmarks.worker import THREADS


@dataclass(frozen=True)
class Memory:
    """In bytes.

    Attributes:
        weights: the model's, tied ones once.
        imports: resident before the model is built: Python and its libraries.
        peak: the most that was ever resident.
    """

    weights: int
    imports: int
    peak: int

    @property
    def beside_weights(self) -> int:
        """All that is not weights, libraries included."""
        return self.peak - self.weights


def of_sweep(shape: Shape, lengths: tuple[int, ...]) -> Memory:
    """The memory of `hydrascope.sweep` on prompts of these lengths."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (shape, lengths))


def _measure(shape: Shape, lengths: tuple[int, ...]) -> Memory:
    import hydrascope as hs
    from benchmarks.tools import NumberTokenizer

    torch.set_num_threads(THREADS)
    imports = _peak_resident()
    model = shape.build()
    generator = torch.Generator().manual_seed(0)
    texts = [
        " ".join(map(str, torch.randint(shape.config.vocab_size, (length,), generator=generator).tolist()))
        for length in lengths
    ]
    hs.sweep(hs.LanguageModel(model, NumberTokenizer()), texts)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return Memory(weights, imports, _peak_resident())


def _peak_resident() -> int:
    """The most memory this process has ever had resident, in bytes, as Linux counts it.

    Not `resource.getrusage`: its maximum includes that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the peak of resident memory")
