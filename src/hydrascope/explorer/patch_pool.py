"""The prompts that patches come from, run once; and with one more prompt, without running them again."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations, collect_clean_activations, plain_pass
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import AblationPositions, resolve_positions
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, Prompt, PromptSet, tokenize
from hydrascope.prompts.subjects import found_subject
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: So many are run at a time.
_BATCH = 16


class Pool:
    """A prompt set and what its clean runs leave, at the last position and, once that is asked for, at all.

    Attributes:
        said: what is to be told of the set.
    """

    def __init__(self, model: LanguageModel, prompts: AnyPrompts) -> None:
        """Fit the prompts to the model; nothing is run yet.

        Raises:
            HydrascopeError: as `hydrascope.sweep`, of a prompt that the model can't take.
        """
        self.model = model
        prepared = prepare(model, prompts)
        self.prompts, self.tokens, self.said = prepared.prompts, prepared.tokens, "; ".join(prepared.notes)
        self._kept: dict[str, CleanActivations] = {}
        self._last: tuple[Any, Any] = (None, None)

    def prompts_for(self, question: Question) -> tuple[PromptSet, int]:
        """The set that a question is asked of, and where in it its prompt stands.

        The typed prompt is the last of the set, or stands where it stood; what is too short for the positions asked
        for is left out, and where subjects are ablated what has none; a prompt that its own twin patches is alone.

        Raises:
            HydrascopeError: too few others have a subject.
        """
        own = self.prompt_of(question)
        if question.is_alone:
            return PromptSet(self.prompts.name, (own,)), 0
        fitting = self._fitting(question)
        kept, tokens = [self.prompts.prompts[index] for index in fitting], tokenize(self.model, [own])[0]
        alike = [place for place, index in enumerate(fitting) if self.tokens[index] == tokens]
        if alike:
            index = alike[0]
            kept[index] = replace(kept[index], text=own.text, tokens=own.tokens, subject=own.subject)
        else:
            index = len(kept)
            kept.append(own)
        if question.at_subject:
            self._require_others(question, len(kept) - 1)
        return replace(self.prompts, prompts=tuple(kept)), index

    def prompt_of(self, question: Question) -> Prompt:
        """The prompt that is asked about; one of the set has the subject that it has there, unless another is typed."""
        own = question.prompt()
        known = next((prompt for prompt in self.prompts.prompts if prompt.text == own.text), own)
        return replace(own, subject=own.subject or known.subject)

    def _fitting(self, question: Question) -> list[int]:
        """The prompts of the set that can be ablated where the question asks for it."""
        if question.at_subject:
            return self._with_subject
        longest = -min(question.positions(), default=-1)
        return [index for index, ids in enumerate(self.tokens) if len(ids) >= longest]

    @cached_property
    def _with_subject(self) -> list[int]:
        return [index for index, prompt in enumerate(self.prompts.prompts) if found_subject(self.model, prompt)]

    def _require_others(self, question: Question, others: int) -> None:
        needed = {"resample": question.patches, "mean": 1}.get(question.ablation, 0)
        if others < needed:
            raise HydrascopeError(
                f"{needed} patches at the subject need as many other prompts with a subject, and of the "
                f"{len(self.prompts.prompts):,} that patches come from {others} have one: give others, ask for fewer "
                "patches, or ablate by zero or noise"
            )

    def warm(self, monitor: JobMonitor) -> None:
        """Run all prompts, and keep what layers and heads write at the last position."""
        self._at("last", (), monitor)

    def clean_runs(self, plan: Plan, index: int, question: Question, monitor: JobMonitor) -> CleanActivations:
        """What the clean runs of a plan's prompts leave; the typed one is at `index`."""
        last = plan.positions[index].positions == (len(plan.tokens[index]) - 1,)
        at = "last" if last and not question.at_subject else "all"
        parts = [self._own(plan, index, at)]
        if len(plan.tokens) > 1:
            pool = select(self._at(at, plan.sites, monitor), self._fitting(question), plan.sites)
            pool = realign(plan.positions[: len(pool.tokens)], pool)
            parts = [pool] if len(pool.tokens) == len(plan.tokens) else [pool, *parts]
        found = joined(parts)
        targets = [plan.target] * len(plan.tokens) if isinstance(plan.target, int) else found.argmax
        return replace(found, positions=plan.positions, targets=targets)

    def _own(self, plan: Plan, index: int, at: str) -> CleanActivations:
        """What the clean run of the prompt at `index` leaves: kept, since it is asked of again and again."""
        key = plan.prompts.prompts[index], plan.positions[index]
        if key != self._last[0] or not self._last[1].values.keys() >= set(plan.sites):
            sites = list(dict.fromkeys([*(_anywhere(self.model) if at == "last" else ()), *plan.sites]))
            self._last = key, self._together([key[0]], [plan.tokens[index]], [key[1]], sites)
        return select(self._last[1], [0], plan.sites)

    def _at(self, at: str, sites: Sequence[Component], monitor: JobMonitor) -> CleanActivations:
        """What stands at `sites`, and whatever was asked for before, in the clean runs of all."""
        before = self._kept.get(at)
        # At one position they are little enough to be kept of all layers and heads.
        wanted = dict.fromkeys([*(_anywhere(self.model) if at == "last" else ()), *sites])
        missing = [site for site in wanted if before is None or site not in before.values]
        if before is not None and not missing:
            return before
        everyone = resolve_positions(self.model, self.prompts.prompts, self.tokens, at)
        # The shortest first, so that little is padded.
        order, parts = sorted(range(len(self.tokens)), key=lambda index: len(self.tokens[index])), []
        for start in range(0, len(order), _BATCH):
            monitor.progress("running the prompts that patches come from", start, len(order))
            batch = order[start : start + _BATCH]
            prompts = [self.prompts.prompts[index] for index in batch]
            tokens, at_each = [self.tokens[index] for index in batch], [everyone[index] for index in batch]
            parts.append(self._together(prompts, tokens, at_each, missing))
        found = select(joined(parts), np.argsort(order).tolist(), missing)
        self._kept[at] = found if before is None else replace(found, values={**before.values, **found.values})
        return self._kept[at]

    def _together(
        self,
        prompts: Sequence[Prompt],
        tokens: Sequence[Sequence[int]],
        positions: Sequence[AblationPositions],
        sites: Sequence[Component],
    ) -> CleanActivations:
        """What stands at `sites` in the clean runs of some prompts, run together."""
        run = plain_pass(self.model, tokens, sites)
        return collect_clean_activations(self.model, prompts, tokens, positions, sites, [range(len(tokens))], run)


def _anywhere(model: LanguageModel) -> list[Component]:
    heads = [model.units(sublayer)[0].site for sublayer in model.sublayers if sublayer.kind == "attn"]
    return [*model.sublayers, *heads]


def joined(parts: Sequence[CleanActivations]) -> CleanActivations:
    """The clean runs of all prompts of `parts`, which keep values at the same sites, in their order."""
    offsets = max(part.row_index.shape[1] for part in parts)
    rows, before = [], 0
    for part in parts:
        row = np.full((len(part.row_index), offsets), -1)
        row[:, : part.row_index.shape[1]] = np.where(part.row_index < 0, -1, part.row_index + before)
        rows.append(row)
        before += len(next(iter(part.values.values())))
    everyone = {name: [each for part in parts for each in getattr(part, name)] for name in _OF_PROMPTS}
    values = {site: torch.cat([part.values[site] for part in parts]) for site in parts[0].values}
    return _with(parts[0], everyone, values=values, row_index=np.concatenate(rows))


#: What of clean runs is a list with an item a prompt.
_OF_PROMPTS = ("prompts", "tokens", "positions", "targets", "argmax")


def select(clean: CleanActivations, indices: Sequence[int], sites: Sequence[Component]) -> CleanActivations:
    """What the clean runs of some prompts leave at some sites."""
    some = {name: [getattr(clean, name)[index] for index in indices] for name in _OF_PROMPTS}
    values = {site: clean.values[site] for site in sites}
    return _with(clean, some, sites=sites, values=values, row_index=clean.row_index[list(indices)])


def realign(positions: Sequence[AblationPositions], clean: CleanActivations) -> CleanActivations:
    """`clean`, which counts from the ends of prompts, counted from where `places` end: from a subject's, maybe."""
    row = np.full((len(positions), max(place.end - place.start for place in positions)), -1)
    for own, place, tokens, rows in zip(row, positions, clean.tokens, clean.row_index, strict=True):
        of_place = rows[len(tokens) - place.end : len(tokens) - place.start]
        own[: len(of_place)] = of_place
    return replace(clean, row_index=row)


def _with(clean: CleanActivations, of_prompts: dict[str, list], **changed: Any) -> CleanActivations:
    """`clean` with other values, whose means aren't known yet."""
    return replace(clean, **{**of_prompts, **changed, "_means": {}})
