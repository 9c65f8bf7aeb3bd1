"""Check that a prompt's numbers don't depend on its batch: measure some prompts alone again.

The balance and the precision can't see such an error: both hold for a prompt that is computed wrongly because of
another. So the shortest prompt of the most mixed batch, which is padded most, and the longest are measured again alone,
the longest by plain forward passes. These numbers are compared with the same batch before a run, and with the finished
result. A patch by a prompt's own clean activation must change nothing.
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
from hydrascope.engines.readouts import Readouts
from hydrascope.models.memory import Batch, within_memory
from hydrascope.runs.batches import batches
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: The most overrides that are measured again, each with its first patch.
OVERRIDES = 2
#: The largest difference, in multiples of the run's own rounding.
TIMES = 10
EFFECTS = ("total", "direct", "indirect")


@dataclass(frozen=True)
class BatchCheck:
    """The largest difference of a prompt's numbers from those of the same prompt alone.

    Attributes:
        difference: in the unit of the readout.
        allowed: the difference that rounding explains.
        readout: the readout's label.
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
    """Measure the shortest prompt of a batch alone, and the longest by the reference engine."""
    places = _ends(plan, batch)
    engines = [plan.engine.name, "reference"][-len(places) :]
    readings = [_alone(plan, clean, batch[place], name) for place, name in zip(places, engines, strict=True)]
    return MeasuredAlone(batch, places, readings)


def check_before(plan: Plan, clean: CleanActivations, alone: MeasuredAlone, precision: Mapping[str, Any]) -> BatchCheck:
    """Compare prompts that were measured alone with the same measured together, before a run.

    Raises:
        HydrascopeError: numbers differ by more than rounding.
    """
    together, fitted = within_memory(partial(_together, plan, clean, alone.batch), Batch(len(alone.batch), OVERRIDES))
    found = [
        _compared(plan, alone.batch[place], [each[:, place] for each in together], readings, precision)
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
        stored: from a prompt's index to its `total`, `direct` and `indirect` `[readout, ablated, patch]` and its
            `logit` `[readout]`.
    """
    found = []
    for place, readings in zip(alone.indices, alone.readings, strict=True):
        variables = stored(alone.batch[place])
        each = [variables[name][:, _checked_indices(plan), 0] for name in EFFECTS]
        together = [torch.from_numpy(np.asarray(values)) for values in (*each, variables["logit"])]
        found.append(_compared(plan, alone.batch[place], together, readings, precision))
    return max(found, key=lambda each: each.excess)


def _ends(plan: Plan, batch: Sequence[int]) -> list[int]:
    """Return the places of the shortest and the longest prompt; one where all are as long."""
    lengths = [len(plan.tokens[index]) for index in batch]
    return [0] if lengths[0] == lengths[-1] else [0, len(batch) - 1]


def _checked_indices(plan: Plan) -> list[int]:
    """Return the places of the overrides to check, away from the first and the last."""
    places = np.unique(np.linspace(0, len(plan.overrides) - 1, OVERRIDES + 2)[1:-1].round().astype(int))
    return [int(place) for place in places]


def _together(plan: Plan, clean: CleanActivations, batch: Sequence[int], fitting: Batch) -> list[Tensor]:
    """Return effects `[readout, prompt, override]` and logits of prompts measured together."""
    prompts = batch[: fitting.prompts]
    values = draw_patches(plan.ablation, clean, prompts).values
    request = _request(
        plan, clean, prompts, lambda component: values(component)[:, :1], 1, clean.prefixes.read(prompts)
    )
    readings = ENGINES[plan.engine.name](plan.model, request)
    return [*(each[..., 0] for each in _effects(readings)), readings.logit]


def _compared(
    plan: Plan, index: int, together: Sequence[Tensor], readings: Readings, precision: Mapping[str, Any]
) -> BatchCheck:
    """Compare a prompt's effects `[readout, override]` and logit with those of it alone."""
    effects = [each[:, 0] for each in _effects(readings)]
    off = [
        _numpy(here) - _numpy(there)
        for here, there in zip(together, [*(each[..., 0] for each in effects), readings.logit[:, 0]], strict=True)
    ]
    # The second patch is the prompt's own activation, which changes nothing.
    off += [_numpy(each[..., 1:]) for each in effects]
    largest = np.stack([np.abs(each).reshape(len(each), -1).max(1, initial=0) for each in off]).max(0)
    allowed = _allowed(plan, readings, precision)
    checks = [
        BatchCheck(float(difference), least, label, plan.prompt_label(index))
        for difference, least, label in zip(largest, allowed, plan.labels, strict=True)
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
        (),
        torch.tensor([clean.targets[index] for index in prompts]),
        plan.routines,
        shared,
    )


def _effects(readings: Readings) -> list[Tensor]:
    """Return the effects `[readout, prompt, override, patch]`, in the order of `EFFECTS`."""
    runs = (readings.logit_ablated, readings.logit_direct, readings.logit_indirect)
    return [run - readings.logit[..., None, None] for run in runs]


def _allowed(plan: Plan, readings: Readings, precision: Mapping[str, Any]) -> list[float]:
    """Return the difference that rounding explains in each readout."""
    terms = readings.unembed.abs().sum(-1) + readings.embed.abs() + readings.logit.abs()
    sizes = terms[:, 0].double().tolist()
    errors = precision.get("precision", {}).get("readouts", {})
    if not errors:
        return [TIMES * TOLERANCE[plan.model.dtype] * size for size in sizes]
    least = 4 * torch.finfo(plan.model.dtype).eps
    return [
        max(TIMES * max(errors[label][effect][1] for effect in EFFECTS), least * size)
        for label, size in zip(plan.labels, sizes, strict=True)
    ]
