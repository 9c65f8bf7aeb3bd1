"""Check that a prompt's numbers don't depend on its batch: measure some prompts alone again.

The balance and the precision can't see such an error: both hold for a prompt that is computed wrongly because of
another. So the shortest prompt of the most mixed batch, which is padded most, and the longest are measured again alone,
the longest by plain forward passes. These numbers are compared with the same batch before a run, and with the finished
result. A patch by a prompt's own clean activation must change nothing. The metric `answer_log_prob`, which takes a pass
of its own, is compared likewise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydrascope.ablations.ablation import draw_patches
from hydrascope.components.component import Component, Override
from hydrascope.engines import ENGINES, Readings, Request
from hydrascope.engines.balance import TOLERANCE
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.directions import Directions
from hydrascope.engines.readouts import Readout, Readouts
from hydrascope.models.memory import Batch, within_memory
from hydrascope.runs.batches import batches
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: The most overrides that are measured again, each with its first patch.
OVERRIDES = 2
#: The largest difference, in multiples of the run's own rounding.
TIMES = 10
#: The rounding of an effect by products of differences, as a share of the largest: 2⁻⁸ is usual, 8 times that rare.
OF_DIFFERENCES = 2**-5
EFFECTS = ("total", "direct", "indirect")
#: The variables of a result that are compared, the metrics if whole answers are read.
CHECKED = (*EFFECTS, "logit", "metric_ablated", "metric_clean")

#: The numbers of one prompt: an array for each readout, then one for each metric of whole answers.
_Numbers = list[np.ndarray]


@dataclass(frozen=True)
class BatchCheck:
    """The largest difference of a prompt's numbers from those of the same prompt alone.

    Attributes:
        difference: in the unit of the readout or metric.
        allowed: the difference that rounding explains.
        readout: the label of the readout, or the metric's name.
        prompt: the prompt's name in messages.
    """

    difference: float
    allowed: float
    readout: str
    prompt: str

    @property
    def excess(self) -> float:
        """Return the difference as a share of what rounding explains; infinite for NaN."""
        return excess(self.difference, self.allowed)

    @property
    def passed(self) -> bool:
        """Whether rounding explains the difference."""
        return self.excess <= 1

    @property
    def sentence(self) -> str:
        """Say how far a prompt's numbers depend on its batch."""
        return (
            f"the numbers of {self.prompt} depend on the prompts that it is measured with: {self.readout} is off by "
            f"{self.difference:.2g} from the same prompt alone, rounding explains {self.allowed:.2g}"
        )

    @property
    def attributes(self) -> dict[str, float]:
        """Return the attributes that a result keeps."""
        return {"batch_difference": self.difference, "batch_tolerance": self.allowed}


def excess(difference: float, allowed: float) -> float:
    """Return a difference as a share of what rounding explains; 0 for none, infinite for NaN.

    >>> excess(1e-6, 4e-6), excess(0.0, 0.0), excess(1e-6, 0.0)
    (0.25, 0.0, inf)
    """
    if difference == 0:
        return 0.0
    return float("inf") if math.isnan(difference) or allowed == 0 else difference / allowed


def most_mixed(plan: Plan, chunks: Sequence[range], size: int) -> list[int]:
    """Return the batch whose prompts differ most in length, the shortest first."""
    every = [batch for chunk in chunks for batch in batches(plan, chunk, size)]
    return max(every, key=lambda batch: len(plan.tokens[batch[-1]]) - len(plan.tokens[batch[0]]))


@dataclass(frozen=True)
class MeasuredAlone:
    """The numbers of some prompts of a batch, each measured alone.

    Attributes:
        batch: the prompts that are measured together.
        indices: the places of the prompts in it that are measured alone.
        readings: of each of these, with the first patch and, where it is kept, its own clean activation.
    """

    batch: Sequence[int]
    indices: Sequence[int]
    readings: Sequence[Readings]


def measure_alone(plan: Plan, clean: CleanActivations, batch: Sequence[int]) -> MeasuredAlone:
    """Measure the shortest prompt of a batch alone, and the longest by the reference engine.

    If whole answers are read, the reference engine measures the prompt with the longest answer as well.
    """
    engines = _engines_by_place(plan, batch)
    readings = [_alone(plan, clean, batch[place], name) for place, name in engines.items()]
    return MeasuredAlone(batch, list(engines), readings)


def check_before(plan: Plan, clean: CleanActivations, alone: MeasuredAlone, precision: Mapping[str, Any]) -> BatchCheck:
    """Compare prompts that were measured alone with the same measured together, before a run.

    Raises:
        HydrascopeError: numbers differ by more than rounding.
    """
    together, fitted = within_memory(partial(_together, plan, clean, alone.batch), Batch(len(alone.batch), OVERRIDES))
    found = [
        _compared(plan, alone.batch[place], _numbers_of(together, place), readings, precision)
        for place, readings in zip(alone.indices, alone.readings, strict=True)
        if place < fitted.prompts
    ]
    worst = max(found, key=lambda each: each.excess)
    if not worst.passed:
        raise HydrascopeError(f"{worst.sentence}: measure each alone (batch_size=1)")
    return worst


def check_after(
    plan: Plan, alone: MeasuredAlone, stored: Callable[[int], Mapping[str, np.ndarray]], precision: Mapping[str, Any]
) -> BatchCheck:
    """Compare prompts that were measured alone with their numbers in a finished result.

    Args:
        stored: from a prompt's index to the variables `CHECKED` of it.
    """
    found = []
    for place, readings in zip(alone.indices, alone.readings, strict=True):
        together = _stored_numbers(plan, stored(alone.batch[place]))
        found.append(_compared(plan, alone.batch[place], together, readings, precision))
    return max(found, key=lambda each: each.excess)


def _stored_numbers(plan: Plan, variables: Mapping[str, np.ndarray]) -> _Numbers:
    checked = _checked_indices(plan)
    effects = [variables[name][:, checked, 0] for name in EFFECTS]
    metrics = [number for number, metric in enumerate(plan.metrics) if metric.of_answer]
    if not metrics:
        return _joined(effects, variables["logit"], np.zeros((0, 0)), np.zeros(0))
    ablated = variables["metric_ablated"][metrics][:, checked, 0]
    return _joined(effects, variables["logit"], ablated, variables["metric_clean"][metrics])


def _joined(effects: Sequence[np.ndarray], logit: np.ndarray, ablated: np.ndarray, clean: np.ndarray) -> _Numbers:
    """Join the numbers of each readout and of each metric.

    Args:
        effects: `[readout, override]` each.
        logit: `[readout]`.
        ablated, clean: `[metric, override]` and `[metric]`.
    """
    readouts = [np.append(np.concatenate([each[row] for each in effects]), logit[row]) for row in range(len(logit))]
    return readouts + [np.append(*each) for each in zip(ablated, clean, strict=True)]


def _engines_by_place(plan: Plan, batch: Sequence[int]) -> dict[int, str]:
    """Return the places of the prompts that are measured alone, and the engine for each."""
    lengths = [len(plan.tokens[index]) for index in batch]
    same = lengths[0] == lengths[-1]
    engines = {0: "reference"} if same else {0: plan.engine.name, len(batch) - 1: "reference"}
    answers = [len(answer) for answer in plan.answers_of(batch)]
    if max(answers, default=1) > 1:
        engines.setdefault(answers.index(max(answers)), "reference")
    return engines


def _checked_indices(plan: Plan) -> list[int]:
    """Return the places of the overrides to check, away from the first and the last."""
    places = np.unique(np.linspace(0, len(plan.whole) - 1, OVERRIDES + 2)[1:-1].round().astype(int))
    return [plan.whole[place] for place in places]


def _together(plan: Plan, clean: CleanActivations, batch: Sequence[int], fitting: Batch) -> Readings:
    """Measure prompts together, with their first patches."""
    prompts = batch[: fitting.prompts]
    values = draw_patches(plan.ablation, clean, prompts).values
    shared = clean.prefixes.read(prompts)
    return ENGINES[plan.engine.name](
        plan.model, _request(plan, clean, prompts, lambda component: values(component)[:, :1], 1, shared)
    )


def _numbers_of(readings: Readings, place: int) -> _Numbers:
    """Return the numbers of one of the prompts of some readings, with its first patch."""
    effects = [_numpy(each[:, place, :, 0]) for each in _effects(readings)]
    ablated, clean = readings.metrics_ablated[:, place, :, 0], readings.metrics[:, place]
    return _joined(effects, _numpy(readings.logit[:, place]), _numpy(ablated), _numpy(clean))


def _changes_by_own_patch(plan: Plan, index: int, readings: Readings) -> _Numbers:
    """Return the changes of a prompt measured alone by its own activation, which should be 0.

    There are none if it wasn't the second patch.
    """
    effects = torch.stack(_effects(readings))[:, :, 0, :, 1:]
    metrics = readings.metrics_ablated[:, 0, :, 1:] - readings.metrics[:, 0, None, None]
    # Where the model computes the continued prompt by another table, its activations are others.
    if plan.model.batch_key(len(plan.tokens[index])) != plan.model.batch_key(plan.lengths[index]):
        metrics = metrics[..., :0]
    return [_numpy(each).ravel() for each in (*effects.transpose(0, 1), *metrics)]


def _compared(
    plan: Plan, index: int, together: _Numbers, readings: Readings, precision: Mapping[str, Any]
) -> BatchCheck:
    """Compare a prompt's numbers with those of it alone."""
    off = [here - there for here, there in zip(together, _numbers_of(readings, 0), strict=True)]
    own = _changes_by_own_patch(plan, index, readings)
    labels = [*plan.labels, *(metric.name for metric in plan.answer_metrics)]
    allowed = [*_allowed(plan, readings, precision), *_allowed_of_answers(plan, index, readings, precision)]
    checks = [
        BatchCheck(float(np.abs(np.concatenate(differences)).max()), least, label, plan.prompt_label(index))
        for *differences, least, label in zip(off, own, allowed, labels, strict=True)
    ]
    return max(checks, key=lambda each: each.excess)


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu())


def _alone(plan: Plan, clean: CleanActivations, index: int, engine: str) -> Readings:
    """Measure one prompt alone, by its first patch and, where kept, its own activation."""
    values = draw_patches(plan.ablation, clean, [index]).values
    ablated = {component for override in _checked_overrides(plan) for component in override.ablated}
    has_own = engine == plan.engine.name and all(component.site in clean.values for component in ablated)

    def patches(component: Component) -> Tensor:
        first = values(component)[:, :1]
        return torch.cat([first, clean.own_activations(component, [index]).to(first)], 1) if has_own else first

    return ENGINES[engine](plan.model, _request(plan, clean, [index], patches, 1 + has_own, None))


def _checked_overrides(plan: Plan) -> tuple[Override, ...]:
    return tuple(plan.overrides[place] for place in _checked_indices(plan))


def _request(
    plan: Plan, clean: CleanActivations, prompts: Sequence[int], values: Any, patches: int, shared: Any
) -> Request:
    return Request(
        [plan.tokens[index] for index in prompts],
        torch.from_numpy(clean.padded_positions(prompts)),
        _checked_overrides(plan),
        patches,
        values,
        plan.units,
        Readouts.of(plan.model, plan.readouts, plan.tokens_of(clean), prompts),
        plan.answer_metrics,
        torch.tensor([clean.targets[index] for index in prompts]),
        plan.routines,
        shared,
        plan.answers_of(prompts),
        products=plan.products,
    )


def _effects(readings: Readings) -> list[Tensor]:
    """Return the effects `[readout, prompt, override, patch]`, in the order of `EFFECTS`."""
    runs = (readings.logit_ablated, readings.logit_direct, readings.logit_indirect)
    return [run - readings.logit[..., None, None] for run in runs]


def _allowed(plan: Plan, readings: Readings, precision: Mapping[str, Any]) -> list[float]:
    """Return the difference that rounding explains in each readout.

    It is at least the balance's tolerance. The precision of one prompt may be good by chance. In float64 it is that of
    float32 inside the run's own engine, often none: it doesn't see float32 in the other engine, as in the softmax of
    eager attention. Products of differences round by a share of the effect.
    """
    terms = readings.unembed.abs().sum(-1) + readings.embed.abs() + readings.logit.abs()
    sizes = terms[:, 0].double().tolist()
    errors = precision.get("precision", {}).get("readouts", {})
    if errors:
        allowed = [
            max(TIMES * max(errors[label][effect][1] for effect in EFFECTS), TOLERANCE[plan.model.dtype] * size)
            for label, size in zip(plan.labels, sizes, strict=True)
        ]
    else:
        allowed = [TIMES * TOLERANCE[plan.model.dtype] * size for size in sizes]
    if plan.products == "bfloat16-differences":
        effects = torch.stack(_effects(readings)).abs().transpose(0, 1).flatten(1).amax(1).double().tolist()
        allowed = [least + OF_DIFFERENCES * effect for least, effect in zip(allowed, effects, strict=True)]
    return _pooled(plan.readouts, allowed)


def _pooled(readouts: Sequence[Readout], allowed: list[float]) -> list[float]:
    """Allow all rows of one `Directions` the same for their length.

    A dot product rounds as the lengths of its vectors. Of many rows some have small products and errors by chance.
    """
    pooled, start = [], 0
    for readout in readouts:
        own = allowed[start : start + len(readout.labels)]
        if isinstance(readout, Directions):
            lengths = readout.numbers.norm(dim=1).tolist()
            most = max((each / length for each, length in zip(own, lengths, strict=True) if length), default=0.0)
            own = [max(each, most * length) for each, length in zip(own, lengths, strict=True)]
        pooled += own
        start += len(own)
    return pooled


def _allowed_of_answers(plan: Plan, index: int, readings: Readings, precision: Mapping[str, Any]) -> list[float]:
    """Return the difference that rounding explains in each metric of whole answers, in nats."""
    # Of the size of the numbers, and of what log p is without any knowledge: it may be next to 0.
    tokens = sum(map(len, plan.answers_of([index])))
    sizes = readings.metrics.abs().sum(1) + readings.metrics_ablated.abs().flatten(1).amax(1)
    sizes = sizes + tokens * math.log(plan.model.vocabulary)
    errors = precision.get("precision", {}).get("metrics", {})
    allowed = [
        max(TIMES * errors[metric.name][1], TOLERANCE[plan.model.dtype] * size)
        if errors
        else TIMES * TOLERANCE[plan.model.dtype] * size
        for metric, size in zip(plan.answer_metrics, sizes.double().tolist(), strict=True)
    ]
    if plan.products == "bfloat16-differences":
        effects = (readings.metrics_ablated - readings.metrics[..., None, None]).abs().flatten(1).amax(1).tolist()
        allowed = [least + OF_DIFFERENCES * effect for least, effect in zip(allowed, effects, strict=True)]
    return allowed
