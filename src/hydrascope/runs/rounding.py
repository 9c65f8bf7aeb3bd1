"""Estimate the rounding of a run's effects by measuring a few of them again in float64.

The balance doesn't show a loss that both of its sides share, as where one feature of the residual stream is so large
that all others drown in its rounding. So some ablations of some prompts are measured again, with the same patches, on a
copy of the model in float64; norms and softmax are computed in float64 as well. For a model that is too large to copy,
the two engines are compared. Of the metrics only `answer_log_prob`, which takes a pass of its own, is compared.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydrascope.ablations.ablation import Patches, draw_patches
from hydrascope.components.component import Override
from hydrascope.engines import ENGINES, Readings, Request
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import Readouts
from hydrascope.models.float64 import Float64Mode, float64_copy
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import is_out_of_memory
from hydrascope.runs.plan import Plan

#: The most that is measured again: prompts drawn at random, one in `ONE_IN`; overrides spread over the run; the first
#: patches of each. On a GPT-2 small that takes 0.5% of a run of 1,209 prompts, and 1% of one of 200.
PROMPTS, ONE_IN, RUNS, PATCHES = 4, 300, 8, 3
EFFECTS = ("total", "direct", "indirect")


def precision(plan: Plan, clean: CleanActivations) -> dict[str, Any]:
    """Return the attribute `precision`: the rounding of effects, in the readouts' units.

        >>> precision(plan, clean)["precision"]["readouts"]["logit"]["total"]    # doctest: +SKIP
        [2.1e-07, 9.8e-07]

    Returns:
        `against`, the reference; the numbers of `prompts`, `ablations` and `patches`; by readout and effect the mean
        and the largest absolute error; and likewise in `metrics`, by name, if there is `answer_log_prob`. An empty
        dictionary where there is no reference.
    """
    other = _other(plan.model, plan.engine.name)
    if other is None:
        return {}
    against, again = other
    count = min(PROMPTS, max(1, len(plan.tokens) // ONE_IN))
    prompts = np.sort(np.random.default_rng(0).choice(len(plan.tokens), count, replace=False)).tolist()
    places = np.unique(np.linspace(0, len(plan.whole) - 1, RUNS).round().astype(int))
    runs = [plan.overrides[plan.whole[place]] for place in places]
    try:
        found = [_off(plan, clean, index, runs, again) for index in prompts]
        off, of_metrics = (torch.cat(each, 2) for each in zip(*found, strict=True))
    except Exception as error:
        if is_out_of_memory(error):
            return {}
        raise
    if not (off.isfinite().all() and of_metrics.isfinite().all()):
        return {}  # the run itself will say so
    flat = off.flatten(2)
    readouts = {
        label: {name: [float(each.mean()), float(each.max())] for name, each in zip(EFFECTS, effects, strict=True)}
        for label, effects in zip(plan.labels, flat.transpose(0, 1), strict=True)
    }
    metrics = {
        metric.name: [float(each.mean()), float(each.max())]
        for metric, each in zip(plan.answer_metrics, of_metrics[0], strict=True)
    }
    how = {"prompts": count, "ablations": len(runs), "patches": min(plan.ablation.patches, PATCHES)}
    return {"precision": {"against": against, **how, "readouts": readouts, **({"metrics": metrics} if metrics else {})}}


#: A model and a way to measure it that serve as the reference.
_Again = tuple[LanguageModel, Callable[[LanguageModel, Request], Readings]]


def _other(model: LanguageModel, engine: str) -> tuple[str, _Again] | None:
    """Return the reference for a run by `engine`, and its name; None where there is none."""
    measure = ENGINES[engine]

    def widely(model: LanguageModel, request: Request) -> Readings:
        with Float64Mode():
            return measure(model, request)

    if model.dtype == torch.float64:
        return "float64 throughout", (model, widely)
    copy = float64_copy(model)
    if copy is not None:
        return "a copy in float64", (copy, widely)
    if not model.anatomy.supports_wavefront:
        return None
    name = "reference" if engine == "wavefront" else "wavefront"
    return f"the {name} engine", (model, ENGINES[name])


def _off(
    plan: Plan, clean: CleanActivations, index: int, overrides: Sequence[Override], again: _Again
) -> tuple[Tensor, Tensor]:
    """Return the errors of one prompt's effects and of its metrics.

    Returns:
        `[effect, readout, 1, override, patch]` and `[1, metric, 1, override, patch]`.
    """
    patches = draw_patches(plan.ablation, clean, [index])
    model, measure = again
    narrow = ENGINES[plan.engine.name](plan.model, _request(plan, clean, plan.model, index, overrides, patches))
    wide = measure(model, _request(plan, clean, model, index, overrides, patches))
    return (_effects(narrow) - _effects(wide)).abs(), (_metrics(narrow) - _metrics(wide)).abs()


def _effects(readings: Readings) -> Tensor:
    clean = readings.logit[..., None, None]
    runs = (readings.logit_ablated, readings.logit_direct, readings.logit_indirect)
    return torch.stack([run - clean for run in runs]).double().cpu()


def _metrics(readings: Readings) -> Tensor:
    return readings.metrics_ablated[None].double().cpu()


def _request(
    plan: Plan,
    clean: CleanActivations,
    model: LanguageModel,
    index: int,
    overrides: Sequence[Override],
    patches: Patches,
) -> Request:
    count = min(plan.ablation.patches, PATCHES)
    return Request(
        [plan.tokens[index]],
        torch.from_numpy(clean.padded_positions([index])),
        tuple(overrides),
        count,
        lambda component: patches.values(component)[:, :count].to(model.dtype),
        (),
        Readouts.of(model, plan.readouts, plan.tokens_of(clean), [index]),
        plan.answer_metrics,
        torch.tensor([clean.targets[index]]),
        plan.routines if model is plan.model else {},
        answers=plan.answers_of([index]),
        products=plan.products if model is plan.model else "float32",
    )
