"""Energies of conditional co-ablation and metrics of two states, from final streams.

The energy of a change of logits is its variance under the clean probabilities. The logits of many rows and a large
vocabulary don't fit into memory: they are computed for one prompt and some candidates at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Override
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.interface import Request
from hydrascope.engines.metrics import POSITIONS_AT_ONCE, Metric, ReferenceFunction, energy, logits_of, values_of
from hydrascope.engines.readouts import Readouts
from hydrascope.models.batching import first_batch
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch, within_memory
from hydrascope.runs.batches import compute_clean_activations, prepare_batch
from hydrascope.runs.parts import stretches
from hydrascope.runs.plan import Plan
from hydrascope.utils.progress import show_progress

#: The largest count of logits of one kind in memory at a time; the terms of an energy are some more.
_LOGITS = POSITIONS_AT_ONCE // 4


@dataclass(frozen=True)
class Rows:
    """The overrides that energies compare.

    Attributes:
        alone: `[candidate]` the ablation of each candidate.
        seeds: `[seed]` the ablation of each seed set S.
        joint: `[seed, candidate]` both; None where the candidate and S overlap.
    """

    alone: Sequence[Override]
    seeds: Sequence[Override]
    joint: Sequence[Sequence[Override | None]]

    @property
    def overrides(self) -> tuple[Override, ...]:
        """All overrides, each once."""
        joint = [override for each in self.joint for override in each if override is not None]
        return tuple(dict.fromkeys((*self.alone, *self.seeds, *joint)))

    def places(self, overrides: Sequence[Override]) -> "Places":
        """Return where the rows stand in a list of overrides."""
        place = {override: number for number, override in enumerate(overrides)}
        joint = [[-1 if override is None else place[override] for override in each] for each in self.joint]
        return Places(
            np.array([place[each] for each in self.alone]),
            np.array([place[each] for each in self.seeds]),
            np.array(joint, int).reshape(len(self.seeds), len(self.alone)),
        )


@dataclass(frozen=True)
class Places:
    """The places of `Rows` in a list of overrides; −1 where there is none."""

    alone: Int[np.ndarray, "candidate"]
    seeds: Int[np.ndarray, "seed"]
    joint: Int[np.ndarray, "seed candidate"]


def measure_energies(
    plan: Plan, rows: Rows, metrics: Mapping[str, ReferenceFunction], batch: Batch, progress: bool
) -> dict[str, Float[np.ndarray, "prompt ..."]]:
    """Return the energies and the metrics of all prompts, means over patches.

    The energies, in logits², are `single` [prompt, candidate], `conditional` and `coupling` [prompt, seed, candidate].
    The metrics are `metric_single` [prompt, metric, candidate] and `metric_conditional` [prompt, metric, seed,
    candidate]. Values are NaN where a candidate and a seed set overlap.

    Args:
        plan: a plan that measures `rows.overrides`.
        rows: the overrides to compare.
        metrics: functions by name that also see the run branched off: the clean run, and that of the seed set.
        batch: the prompts and overrides of one pass, halved when memory runs out.
        progress: whether to show the progress.
    """
    clean = compute_clean_activations(plan, batch, [range(len(plan.tokens))])
    places = rows.places(plan.overrides)
    remaining = sorted(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))
    order, pieces = np.argsort(remaining, kind="stable"), []
    with show_progress(len(remaining), 0, progress) as advance:
        while remaining:
            tried = Batch(len(first_batch(plan.model, plan.tokens, remaining, batch.prompts)), batch.overrides)
            found, fitted = within_memory(partial(_some_prompts, plan, clean, places, metrics, remaining), tried)
            batch = batch if fitted == tried else fitted
            pieces += found
            remaining = remaining[fitted.prompts :]
            advance(fitted.prompts)
    return {name: np.stack([piece[name] for piece in pieces])[order] for name in pieces[0]}


@torch.no_grad()
def _some_prompts(
    plan: Plan,
    clean: CleanActivations,
    places: Places,
    metrics: Mapping[str, ReferenceFunction],
    remaining: Sequence[int],
    batch: Batch,
) -> list[dict[str, np.ndarray]]:
    """Return the energies and the metrics of the first of the prompts `remaining`, one by one."""
    indices = remaining[: batch.prompts]
    prepared = prepare_batch(plan, clean, indices)
    pieces = []
    for some in stretches(plan.overrides, batch.overrides):
        request = Request(
            [plan.tokens[index] for index in indices],
            prepared.positions,
            plan.overrides[some],
            plan.ablation.patches,
            prepared.patches.values,
            (),
            Readouts(()),
            (),
            torch.tensor([clean.targets[index] for index in indices]),
            plan.routines,
            prepared.prefix,
        )
        before, after = plan.engine.final_streams(plan.model, request)
        pieces.append(after)
    return [
        prompt_energies(plan.model, own, streams, places, metrics, clean.targets[index])
        for index, own, streams in zip(indices, before, torch.cat(pieces, 1), strict=True)
    ]


def prompt_energies(
    model: LanguageModel,
    clean: Float[Tensor, "width"],
    streams: Float[Tensor, "ablated patch width"],
    places: Places,
    metrics: Mapping[str, ReferenceFunction],
    target: int,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Return the energies and the metrics of one prompt, means over patches.

    All runs of a term use the same patch.

    Args:
        model: the model.
        clean: the final residual stream of the clean pass.
        streams: those of all rows.
        places: the places of the rows to compare.
        metrics: functions by name that also see the run branched off.
        target: the target token's id.
    """
    single, metric_single = np.zeros(len(places.alone)), np.zeros((len(metrics), len(places.alone)))
    blank = np.where(places.joint < 0, np.nan, 0.0)
    conditional, coupling, metric_conditional = blank.copy(), blank.copy(), np.repeat(blank[None], len(metrics), 0)
    clean_logits = logits_of(model, clean[None])[0]
    weight = clean_logits.softmax(-1)
    step = max(_LOGITS // len(clean_logits), 1)
    for patch in range(streams.shape[1]):
        rows = streams[:, patch]
        in_state = [logits_of(model, rows[place][None])[0] for place in places.seeds]
        for start in range(0, len(places.alone), step):
            some = np.arange(start, min(start + step, len(places.alone)))
            alone = _branched(model, clean, clean_logits, rows[places.alone[some]])
            lost = clean_logits - alone
            single[some] += _numpy(energy(lost, weight))
            metric_single[:, some] += _metrics(metrics, alone, clean_logits, target, clean_logits)
            for number, (place, logits) in enumerate(zip(places.seeds, in_state, strict=True)):
                there = places.joint[number, some] >= 0
                if not there.any():
                    continue
                both = _branched(model, rows[place], logits, rows[places.joint[number, some[there]]])
                lost_too = logits - both
                conditional[number, some[there]] += _numpy(energy(lost_too, weight))
                coupling[number, some[there]] += _numpy(energy(lost_too - lost[there], weight))
                given = _metrics(metrics, both, clean_logits, target, logits)
                metric_conditional[:, number, some[there]] += given
    found = {"single": single, "conditional": conditional, "coupling": coupling}
    if metrics:
        found |= {"metric_single": metric_single, "metric_conditional": metric_conditional}
    return {name: values / streams.shape[1] for name, values in found.items()}


def _branched(
    model: LanguageModel,
    before: Float[Tensor, "width"],
    logits: Float[Tensor, "vocabulary"],
    after: Float[Tensor, "row width"],
) -> Float[Tensor, "row vocabulary"]:
    """Return the logits of rows, or of the run branched off where the streams are equal.

    Args:
        model: the model.
        before: the final residual stream of the run branched off.
        logits: its logits.
        after: the final residual streams of the rows.
    """
    found = logits_of(model, after)
    # Products of different sizes round differently.
    found[(after == before).all(-1)] = logits
    return found


def _metrics(
    metrics: Mapping[str, ReferenceFunction], logits: Tensor, clean: Tensor, target: int, reference: Tensor
) -> Float[np.ndarray, "metric row"]:
    """Compute metrics of rows that branch off a reference run."""
    if not metrics:
        return np.zeros((0, len(logits)))
    seen = [Metric(name, partial(function, reference=reference)) for name, function in metrics.items()]
    return _numpy(values_of(seen, logits, clean, [target] * len(seen)))


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu())
