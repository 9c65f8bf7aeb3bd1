"""What bfloat16 brings: how much time it saves, and the error it adds to each quantity."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import hydrascope as hs
from benchmarks.shapes import Shape
from benchmarks.task import Prompt, draw_task
from benchmarks.tools import measure_effects
from hydrascope import books


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


def compare(shape: Shape, lengths: tuple[int, ...], rounds: int, say: Callable[[str], None]) -> Precision:
    """The engine in both precisions by turns, on the same prompts, targets and patches."""
    model = shape.build()
    task = draw_task(model, shape, lengths)
    narrow_task = [Prompt(prompt.tokens, prompt.target, prompt.patches.bfloat16()) for prompt in task]
    wide = hs.LanguageModel(model)
    narrow = hs.LanguageModel(shape.build().bfloat16())
    errors = _errors(_quantities(wide, task), _quantities(narrow, narrow_task))
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for number in range(rounds):
        for name, language_model, prompts in (("float32", wide, task), ("bfloat16", narrow, narrow_task)):
            start = time.perf_counter()
            measure_effects(language_model, prompts)
            times[name].append((time.perf_counter() - start) / len(prompts))
            say(f"precision, round {number + 1}: {name} {times[name][-1]:.3f} s a prompt")
    return Precision(statistics.median(times["float32"]), statistics.median(times["bfloat16"]), errors)


def _quantities(model: hs.LanguageModel, task: list[Prompt]) -> dict[str, Tensor]:
    """The quantities of the paper, `[prompt, ...]`, in float64."""
    downstream = torch.tensor(
        [[other in set(model.downstream(component)) for other in model.components] for component in model.components]
    )
    each = [books.quantities(effects, downstream, "clean") for effects in measure_effects(model, task)]
    found = {name: torch.cat([prompt[name] for prompt in each]).double() for name in each[0]}
    change = found["unembed_ablated"] - found["unembed"][:, None, None, :]
    return found | {"compensatory effect": torch.einsum("pakc,ac->pak", change, downstream.double())}


def _errors(wide: dict[str, Tensor], narrow: dict[str, Tensor]) -> dict[str, Error]:
    return {
        name: Error(
            size=float(values.square().mean().sqrt()),
            error=float((narrow[name] - values).square().mean().sqrt()),
            worst=float((narrow[name] - values).abs().max()),
        )
        for name, values in wide.items()
    }
