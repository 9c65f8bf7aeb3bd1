"""What it costs to ask who repairs: mediation against hooks that make the same runs, pairs of heads, Shapley values."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

import hydrascope as hs
from benchmarks.engine import Engine
from benchmarks.machine import Rate
from benchmarks.shapes import Shape, parts, visit
from benchmarks.task import Prompt, Work, draw_task
from hydrascope.components.component import Component, Override
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.cost import count_operations
from hydrascope.runs.plan import make_plan

#: Patches of every run.
PATCHES = 5
#: Prompts that are measured, of those that patches are drawn from.
PROMPTS = 8
#: Hooks make one run in so many: the time of each is that of one forward pass, whichever it is.
ONE_IN = 20
#: Answers may be apart by so much, as a share of the largest.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Mediating:
    """Seconds a prompt, medians over rounds; of hooks for all runs, from those that were made.

    Attributes:
        hooks_last: where only the last position meets the unembedding.
        runs: how many of each prompt.
        made: how many of them hooks made.
        difference: the largest between the two answers, as a share of the largest effect.
    """

    runs: int
    made: int
    plain: float
    mediation: float
    hooks: float
    hooks_last: float
    difference: float


def of_mediation(shape: Shape, lengths: tuple[int, ...], rounds: int, say: Callable[[str], None]) -> Mediating:
    """All layers and all that is downstream of each, as necessary and as sufficient.

    Raises:
        RuntimeError: hooks find other numbers.
    """
    model = shape.build()
    ours, work = hs.models.LanguageModel(model), Work()
    task = [Prompt(p.tokens, p.target, p.patches[:, :PATCHES]) for p in draw_task(model, shape, lengths, work)][
        :PROMPTS
    ]
    overrides = hs.Mediation("layers", "layers").overrides(ours)
    plain, mediating = Engine(ours, shape, work), Engine(ours, shape, work, overrides=overrides)
    chosen = range(0, len(overrides), ONE_IN)
    clean = [written(model, shape, prompt) for prompt in task]
    times: tuple[list[float], ...] = ([], [], [], [])
    worst = 0.0
    for number in range(rounds + 1):
        prompt = number % len(task)
        start = time.perf_counter()
        plain.measure(task)
        times[0].append((time.perf_counter() - start) / len(task))
        start = time.perf_counter()
        found = mediating.measure(task)
        times[1].append((time.perf_counter() - start) / len(task))
        start = time.perf_counter()
        expected = torch.stack(
            [hooked(model, shape, work, task[prompt], overrides[place], clean[prompt]) for place in chosen]
        )
        times[2].append((time.perf_counter() - start) * len(overrides) / len(chosen))
        start = time.perf_counter()
        for place in chosen:
            hooked(model, shape, work, task[prompt], overrides[place], clean[prompt], logits_to_keep=1)
        times[3].append((time.perf_counter() - start) * len(overrides) / len(chosen))
        here = found[prompt].logit_ablated[0, 0][list(chosen)]
        size = (found[prompt].logit_ablated - found[prompt].logit[..., None, None]).abs().max()
        worst = max(worst, float((here - expected).abs().max() / size))
        if worst > ROUNDING:
            raise RuntimeError(f"hooks find other numbers: off by {worst:.1e} of the largest effect")
        say(f"mediation, round {number}: " + ", ".join(f"{each[-1]:.4f}" for each in times) + " s a prompt")
    medians = [statistics.median(each[1:]) for each in times]
    return Mediating(len(overrides), len(chosen), *medians, worst)


@torch.inference_mode()
def written(model: PreTrainedModel, shape: Shape, prompt: Prompt) -> dict[Component, Tensor]:
    """What every layer writes at the last position of the clean run: taken once a prompt, and not timed."""
    where, found = parts(model, shape), {}
    with ExitStack() as hooks:
        for sublayer in Work().sites(shape):
            hooks.enter_context(
                visit(where, sublayer, lambda hidden, at=sublayer: found.update({at: hidden[0, -1].clone()}))
            )
        model(prompt.tokens[None])
    return found


@torch.inference_mode()
def hooked(
    model: PreTrainedModel,
    shape: Shape,
    work: Work,
    prompt: Prompt,
    override: Override,
    clean: Mapping[Component, Tensor],
    **forward: Any,
) -> Tensor:
    """`[patch]` the target's centred logit in one run, by hooks: a forward pass of a copy of the prompt a patch."""
    where = parts(model, shape)
    ablated = {component: number for number, component in enumerate(work.ablated(shape))}

    def write(component: Component, hidden: Tensor) -> None:
        frozen = component in override.frozen
        hidden[:, -1] = clean[component] if frozen else prompt.patches[ablated[component], :, 0]

    with ExitStack() as hooks:
        for component in override.overridden:
            hooks.enter_context(visit(where, component, lambda hidden, part=component: write(part, hidden)))
        logits = model(prompt.tokens.expand(prompt.patches.shape[1], -1), **forward).logits[:, -1]
    return logits[:, prompt.target] - logits.mean(1)


@dataclass(frozen=True)
class Asked:
    """Seconds a prompt of one call of the library, clean runs and checks included.

    Attributes:
        error: of Shapley values the largest standard error of a mean, as a share of the largest mean; else 0.
    """

    runs: int
    patches: int
    prompts: int
    seconds: float
    error: float = 0.0


@dataclass(frozen=True)
class Paired:
    """Seconds a prompt of all pairs of heads, clean runs and checks included.

    Attributes:
        model: the model's name.
        runs: single heads and pairs.
        flop: a prompt's operations in products; a multiply-add is two.
        rate: what the machine multiplies in a second, measured before and after.
    """

    model: str
    runs: int
    seconds: float
    flop: float
    rate: float


def of_head_pairs(shape: Shape, prompts: int) -> Paired:
    """All pairs of heads, set to zero."""
    model, texts = _prepared(shape, prompts)
    plan = make_plan(model, texts, hs.Zero(), SweepConfig(hs.Interactions("heads")))
    flop, rate = count_operations(plan, range(prompts), plan.overrides) / prompts, Rate()
    rate.measure()
    start = time.perf_counter()
    hs.analyses.interactions(model, texts, hs.Zero(), components="heads")
    seconds = (time.perf_counter() - start) / prompts
    rate.measure()
    return Paired(shape.name, len(plan.overrides), seconds, flop, rate.best)


def of_shapley(shape: Shape, prompts: int, orders: int) -> Asked:
    """Shapley values of all layers, with `PATCHES` patches."""
    model, texts = _prepared(shape, prompts)
    start = time.perf_counter()
    found = hs.analyses.shapley(model, texts, hs.Resample(PATCHES), components="layers", orders=orders)
    seconds = (time.perf_counter() - start) / prompts
    error = float(found["mean_standard_error"].max() / abs(found["shapley"].mean("prompt")).max())
    return Asked(orders, PATCHES, prompts, seconds, error)


def _prepared(shape: Shape, prompts: int) -> tuple[hs.models.LanguageModel, Sequence[list[int]]]:
    generator = np.random.default_rng(0)
    texts = [generator.integers(shape.config.vocab_size, size=10).tolist() for _ in range(prompts)]
    return hs.models.LanguageModel(shape.build()), texts
