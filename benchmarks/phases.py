"""Where hydrascope's time goes: in products with weights, in the rest of the model, and outside the model."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.shapes import Shape
from benchmarks.task import Work, draw_task
from benchmarks.tools import hydrascope_sweep


@dataclass
class Phases:
    """Seconds a prompt.

    Attributes:
        products: in modules that multiply with weights, with what is done in the same pass (biases, GELU), and the
            unembedding of clean runs.
        layers: in the rest of the model's calls: attention itself, norms, activations, residual additions, and
            hydrascope's hooks, which join, overwrite and read rows.
        outside: everything else: drawing patches, effects from what was read, checks of the balance, the dataset.
    """

    products: float = 0.0
    layers: float = 0.0
    outside: float = 0.0

    @property
    def total(self) -> float:
        return self.products + self.layers + self.outside


def of_sweep(shape: Shape, lengths: Sequence[int], work: Work) -> Phases:
    """The phases of `hydrascope.sweep` on prompts of these lengths.

    A run of its own: the clocks cost a little, so that no other figure is taken from it.
    """
    model = shape.build()
    task = draw_task(model, shape, lengths, work)
    everything = range(len(work.ablated(shape)))
    tool = hydrascope_sweep(model, shape, work)
    tool(task, everything)
    phases = Phases()
    with _clocked(phases):
        start = time.perf_counter()
        tool(task, everything)
        phases.outside = time.perf_counter() - start - phases.products - phases.layers
    return Phases(*(seconds / len(task) for seconds in (phases.products, phases.layers, phases.outside)))


@contextmanager
def _clocked(phases: Phases) -> Iterator[None]:
    """Let every call of a module, hooks included, add its time to `phases`."""
    plain = nn.Module.__call__
    depth = 0

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        multiplies = isinstance(module, nn.Linear | Conv1D)
        if depth and not multiplies:
            return plain(module, *args, **kwargs)
        depth += 1
        start = time.perf_counter()
        try:
            return plain(module, *args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            depth -= 1
            if multiplies:
                phases.products += seconds
            if depth:
                phases.layers -= seconds
            elif not multiplies:
                phases.layers += seconds

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = plain  # type: ignore[method-assign]
