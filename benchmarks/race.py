"""Every tool on the same work, turn by turn, so that what else the machine does falls on all alike."""

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import Rate
from benchmarks.products import needed_operations
from benchmarks.shapes import Shape
from benchmarks.task import Answer, Work
from benchmarks.tools import ENGINE, LAST, WHOLE
from benchmarks.worker import Worker

#: Answers may differ by rounding: this share of the largest number in them.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Race:
    """What is timed.

    Attributes:
        lengths: of all prompts. Hydrascope is timed on all of them, a peer on one prompt a round, of the mean
            length: a peer's time grows linearly with the length.
        peers: names from `benchmarks.tools`.
        rounds: how often each is timed.
        work: what is done with every prompt.
        one_in: a peer ablates one in so many components, other ones each round, and its time counts as many times: it
            takes as long for each of them. Hydrascope ablates all.
    """

    name: str
    shape: Shape
    lengths: tuple[int, ...]
    peers: tuple[str, ...]
    rounds: int
    work: Work
    one_in: int = 1


@dataclass(frozen=True)
class Lap:
    """One tool in one round: seconds a prompt, and how far its answer was from hydrascope's, in logits."""

    tool: str
    round: int
    seconds: float
    difference: float


@dataclass(frozen=True)
class Result:
    """What came of a race.

    Attributes:
        size: the largest number in the answers, in logits: what differences are to be compared with.
        operations: FLOP that a prompt needs, on average.
        rate: of the large product, measured before and after hydrascope's turn in each round.
        rate_in_round: the mean of the better library's rate just before and just after hydrascope's turn.
        load: what else ran on the machine when it began, in processes.
    """

    race: Race
    laps: list[Lap]
    size: float
    operations: float
    rate: Rate
    rate_in_round: list[float]
    load: float

    def record(self) -> dict[str, Any]:
        """All of it as plain numbers and names; seconds are medians over rounds, `times` of hydrascope's engine."""
        names = dict.fromkeys(lap.tool for lap in self.laps)
        seconds = {name: [lap.seconds for lap in self.laps if lap.tool == name] for name in names}
        median = {name: statistics.median(times) for name, times in seconds.items()}
        return {
            "model": self.race.shape.name,
            "ablate": self.race.work.ablate,
            "at": self.race.work.at,
            "ablated": len(self.race.work.ablated(self.race.shape)),
            "one_in": self.race.one_in,
            "prompts": len(self.race.lengths),
            "mean_tokens": statistics.mean(self.race.lengths),
            "longest": max(self.race.lengths),
            "rounds": self.race.rounds,
            "load": self.load,
            "operations": self.operations,
            "best_rate": self.rate.best,
            "rates": self.rate.measured,
            "rate_in_round": self.rate_in_round,
            "size": self.size,
            "tools": {
                name: {
                    "seconds": median[name],
                    "rounds": seconds[name],
                    "times": median[name] / median[ENGINE],
                    "share": self.operations / median[name] / self.rate.best,
                    "share_in_round": statistics.median(
                        self.operations / time / rate
                        for time, rate in zip(seconds[name], self.rate_in_round, strict=True)
                    ),
                    "difference": max(lap.difference for lap in self.laps if lap.tool == name),
                }
                for name in names
            },
        }


def run(race: Race, say: Callable[[str], None]) -> Result:
    """Time every tool of `race`, each answer checked against hydrascope's.

    Raises:
        RuntimeError: a tool failed, or its answer differs by more than rounding: it measures something else.
    """
    load = os.getloadavg()[0]
    rate = Rate()
    laps: list[Lap] = []
    rate_in_round: list[float] = []
    with ExitStack() as stack:
        workers = {}
        tools = (ENGINE, WHOLE, *race.peers)
        for name in dict.fromkeys(tool.removesuffix(LAST) for tool in tools):
            workers[name] = stack.enter_context(Worker(name, race.shape, race.lengths, race.work))
            say(f"{race.name}: {name} is ready")
        everyone, everything = range(len(race.lengths)), range(len(race.work.ablated(race.shape)))
        mean = statistics.mean(race.lengths)
        middling = sorted(everyone, key=lambda index: abs(race.lengths[index] - mean))
        found: list[Answer] = []
        for number in range(race.rounds):
            before = rate.measure()
            for tool in tools:
                ours = tool in (ENGINE, WHOLE)
                indices = everyone if ours else [middling[number]]
                ablated = everything if ours else everything[number % race.one_in :: race.one_in]
                forward = {"logits_to_keep": 1} if tool.endswith(LAST) else {}
                seconds, answers = workers[tool.removesuffix(LAST)].run(indices, ablated, **forward)
                seconds *= len(everything) / len(ablated)
                found = found or answers
                difference = _difference(tool, answers, [found[index].of(ablated) for index in indices])
                laps.append(Lap(tool, number, seconds, difference))
                if tool == WHOLE:
                    rate_in_round.append((before + rate.measure()) / 2)
                say(f"{race.name}, round {number + 1}: {tool} {seconds:.3f} s a prompt, within {difference:.1e}")
    return Result(
        race,
        laps,
        size=max(map(size, found)),
        operations=statistics.mean(needed_operations(race.shape, race.work, length) for length in race.lengths),
        rate=rate,
        rate_in_round=rate_in_round,
        load=load,
    )


def size(answer: Answer) -> float:
    """The largest number in `answer`, in logits."""
    return max(float(values.abs().max()) for values in (answer.unembed, answer.row_unembed, answer.row_logit))


def _difference(tool: str, answers: Sequence[Answer], expected: Sequence[Answer]) -> float:
    worst = 0.0
    for mine, theirs in zip(answers, expected, strict=True):
        difference = mine.difference(theirs)
        if not difference <= TOLERANCE * size(theirs):
            raise RuntimeError(f"{tool} measures something else: off by {difference:.2g} logits of {size(theirs):.2g}")
        worst = max(worst, difference)
    return worst
