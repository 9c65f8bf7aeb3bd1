"""What bfloat16 brings: how much time it saves, and the error it adds to each quantity."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import hydrascope as hs
from benchmarks.engine import Engine
from benchmarks.shapes import Shape
from benchmarks.task import Prompt, Work, draw_task
from hydrascope.components.order import downstream
from hydrascope.engines import balance


@dataclass(frozen=True)
class Error:
    """How far bfloat16 is from float32 in one quantity, over all prompts, ablations and patches; in logits.

    Attributes:
        size: the quantity's root mean square in float32.
        error: the root mean square of the difference.
        worst: the largest difference.
    """

    size: float
    error: float
    worst: float


@dataclass(frozen=True)
class Precision:
    """Seconds a prompt in either precision, medians of `rounds` turns, and the error of each quantity."""

    float32: float
    bfloat16: float
    errors: dict[str, Error]


def compare(
    shape: Shape, lengths: tuple[int, ...], measured: int, rounds: int, say: Callable[[str], None]
) -> Precision:
    """The engine in both precisions by turns, on the same prompts, targets and patches.

    Args:
        lengths: of all prompts that patches come from.
        measured: how many of them are measured.
    """
    model, work = shape.build(), Work()
    task = draw_task(model, shape, lengths, work)[:measured]
    narrow_task = [Prompt(prompt.tokens, prompt.target, prompt.patches.bfloat16()) for prompt in task]
    wide = Engine(hs.models.LanguageModel(model), shape, work)
    narrow = Engine(hs.models.LanguageModel(shape.build().bfloat16()), shape, work)
    errors = _errors(_quantities(wide, task), _quantities(narrow, narrow_task))
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for number in range(rounds):
        for name, engine, prompts in (("float32", wide, task), ("bfloat16", narrow, narrow_task)):
            start = time.perf_counter()
            engine.measure(prompts)
            times[name].append((time.perf_counter() - start) / len(prompts))
            say(f"precision, round {number + 1}: {name} {times[name][-1]:.3f} s a prompt")
    return Precision(statistics.median(times["float32"]), statistics.median(times["bfloat16"]), errors)


def _quantities(engine: Engine, task: list[Prompt]) -> dict[str, Tensor]:
    """The quantities of the paper, with the logit as their one readout, in float64."""
    below = torch.tensor([downstream(engine.model, override, engine.components) for override in engine.runs]).double()
    each = [balance.quantities(readings, torch.tensor([True])) for readings in engine.measure(task)]
    names = ("unembed", "unembed_ablated_by_patch", "total", "direct", "indirect", "logit")
    found = {name: torch.cat([prompt[name] for prompt in each], 1).double() for name in names}
    ablated = found.pop("unembed_ablated_by_patch")
    change = ablated - found["unembed"][:, :, None, None]
    compensatory = torch.einsum("rpakc,ac->rpak", change, below)
    return {"unembed": found.pop("unembed"), "unembed_ablated": ablated, **found, "compensatory effect": compensatory}


def _errors(wide: dict[str, Tensor], narrow: dict[str, Tensor]) -> dict[str, Error]:
    return {
        name: Error(
            size=float(values.square().mean().sqrt()),
            error=float((narrow[name] - values).square().mean().sqrt()),
            worst=float((narrow[name] - values).abs().max()),
        )
        for name, values in wide.items()
    }
