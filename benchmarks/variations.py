"""What more costs: metrics besides the readout, and all pairs of layers besides each layer alone."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import hydrascope as hs
from benchmarks.engine import Engine
from benchmarks.shapes import Shape
from benchmarks.task import Prompt, Work, draw_task
from hydrascope.components.component import Override

#: The metrics that are added.
METRICS = ("log_prob", "kl")


@dataclass(frozen=True)
class Variation:
    """Seconds a prompt, without and with more, the medians of the rounds; `times`, the median ratio within a round."""

    without: float
    more: float
    times: float


def of_metrics(shape: Shape, lengths: tuple[int, ...], rounds: int, say: Callable[[str], None]) -> Variation:
    """All layers with every patch, and the same with `METRICS`."""
    task, model, work = _prepared(shape, lengths)
    plain, with_metrics = Engine(model, shape, work), Engine(model, shape, work, metrics=METRICS)
    return _by_turns(plain, with_metrics, task, rounds, lambda line: say(f"metrics, {line}"))


def of_pairs(shape: Shape, lengths: tuple[int, ...], rounds: int, say: Callable[[str], None]) -> Variation:
    """All layers with one patch, and all pairs of them."""
    task, model, work = _prepared(shape, lengths)
    one = [Prompt(prompt.tokens, prompt.target, prompt.patches[:, :1]) for prompt in task]
    pairs = Engine(model, shape, work, overrides=[Override(pair) for pair in combinations(model.sublayers, 2)])
    return _by_turns(Engine(model, shape, work), pairs, one, rounds, lambda line: say(f"pairs, {line}"))


def _prepared(shape: Shape, lengths: tuple[int, ...]) -> tuple[list[Prompt], hs.models.LanguageModel, Work]:
    model, work = shape.build(), Work()
    return draw_task(model, shape, lengths, work), hs.models.LanguageModel(model), work


def _by_turns(without: Engine, more: Engine, task: list[Prompt], rounds: int, say: Callable[[str], None]) -> Variation:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for engine, found in zip((without, more), times, strict=True):
            start = time.perf_counter()
            engine.measure(task)
            found.append((time.perf_counter() - start) / len(task))
        # The first call of anything is slower: round 0 does not count.
        say(f"round {number}: {times[0][-1]:.4f} and {times[1][-1]:.4f} s a prompt")
    plain, added = times[0][1:], times[1][1:]
    ratios = [b / a for a, b in zip(plain, added, strict=True)]
    return Variation(statistics.median(plain), statistics.median(added), statistics.median(ratios))
