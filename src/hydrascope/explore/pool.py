"""The prompts that patches come from, run once; and with one more prompt, without running them again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hydrascope.bank import CleanRuns, clean_runs, plainly
from hydrascope.components import Component
from hydrascope.explore.question import Question
from hydrascope.explore.watch import Watch
from hydrascope.model import LanguageModel
from hydrascope.plan import Plan
from hydrascope.positions import Places, places
from hydrascope.prompts import AnyPrompts, Prompt, PromptSet, tokenize

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
        self.prompts, self.said = PromptSet.of(prompts).fitted(model)
        self.tokens = tokenize(model, self.prompts.prompts)
        self._kept: dict[str, CleanRuns] = {}
        self._last: tuple[Any, Any] = (None, None)

    def around(self, question: Question) -> tuple[PromptSet, int]:
        """The set that a question is asked of, and where in it its prompt stands.

        The typed prompt is the last of the set, or stands where it stood; what is too short for the positions asked
        for is left out; a prompt that its own twin patches is alone.
        """
        own = question.prompt()
        if question.alone:
            return PromptSet(self.prompts.name, (own,)), 0
        kept = tuple(self.prompts.prompts[index] for index in self._fitting(question.positions()))
        texts = [prompt.text for prompt in kept]
        if own.text in texts:
            return replace(self.prompts, prompts=kept), texts.index(own.text)
        return replace(self.prompts, prompts=(*kept, own)), len(kept)

    def _fitting(self, positions: Sequence[int]) -> list[int]:
        longest = -min(positions, default=-1)
        return [index for index, ids in enumerate(self.tokens) if len(ids) >= longest]

    def warm(self, watch: Watch) -> None:
        """Run all prompts, and keep what layers and heads write at the last position."""
        self._at("last", (), watch)

    def clean_runs(self, plan: Plan, index: int, positions: Sequence[int], watch: Watch) -> CleanRuns:
        """What the clean runs of a plan's prompts leave; the typed one is at `index`."""
        at = "last" if plan.places[index].positions == (len(plan.tokens[index]) - 1,) else "all"
        parts = [self._own(plan, index, at)]
        if len(plan.tokens) > 1:
            pool = _some(self._at(at, plan.sites, watch), self._fitting(positions), plan.sites)
            parts = [pool] if len(pool.tokens) == len(plan.tokens) else [pool, *parts]
        found = joined(parts)
        targets = [plan.target] * len(plan.tokens) if isinstance(plan.target, int) else found.argmax
        return replace(found, places=plan.places, targets=targets)

    def _own(self, plan: Plan, index: int, at: str) -> CleanRuns:
        """What the clean run of the prompt at `index` leaves: kept, since it is asked of again and again."""
        key = plan.prompts.prompts[index], plan.places[index]
        if key != self._last[0] or not self._last[1].values.keys() >= set(plan.sites):
            sites = list(dict.fromkeys([*(_anywhere(self.model) if at == "last" else ()), *plan.sites]))
            self._last = key, self._together([key[0]], [plan.tokens[index]], [key[1]], sites)
        return _some(self._last[1], [0], plan.sites)

    def _at(self, at: str, sites: Sequence[Component], watch: Watch) -> CleanRuns:
        """What stands at `sites`, and whatever was asked for before, in the clean runs of all."""
        before = self._kept.get(at)
        # At one position they are little enough to be kept of all layers and heads.
        wanted = dict.fromkeys([*(_anywhere(self.model) if at == "last" else ()), *sites])
        missing = [site for site in wanted if before is None or site not in before.values]
        if before is not None and not missing:
            return before
        everyone = places(self.model, self.prompts.prompts, self.tokens, at)
        # The shortest first, so that little is padded.
        order, parts = sorted(range(len(self.tokens)), key=lambda index: len(self.tokens[index])), []
        for start in range(0, len(order), _BATCH):
            watch.progress("running the prompts that patches come from", start, len(order))
            batch = order[start : start + _BATCH]
            prompts = [self.prompts.prompts[index] for index in batch]
            tokens, at_each = [self.tokens[index] for index in batch], [everyone[index] for index in batch]
            parts.append(self._together(prompts, tokens, at_each, missing))
        found = _some(joined(parts), np.argsort(order).tolist(), missing)
        self._kept[at] = found if before is None else replace(found, values={**before.values, **found.values})
        return self._kept[at]

    def _together(
        self,
        prompts: Sequence[Prompt],
        tokens: Sequence[Sequence[int]],
        places: Sequence[Places],
        sites: Sequence[Component],
    ) -> CleanRuns:
        """What stands at `sites` in the clean runs of some prompts, run together."""
        run = plainly(self.model, tokens, sites)
        return clean_runs(self.model, prompts, tokens, places, sites, [range(len(tokens))], run)


def _anywhere(model: LanguageModel) -> list[Component]:
    heads = [model.units(layer)[0].site for layer in model.components if layer.kind == "attn"]
    return [*model.components, *heads]


def joined(parts: Sequence[CleanRuns]) -> CleanRuns:
    """The clean runs of all prompts of `parts`, which keep values at the same sites, in their order."""
    offsets = max(part.row.shape[1] for part in parts)
    rows, before = [], 0
    for part in parts:
        row = np.full((len(part.row), offsets), -1)
        row[:, : part.row.shape[1]] = np.where(part.row < 0, -1, part.row + before)
        rows.append(row)
        before += len(next(iter(part.values.values())))
    everyone = {name: [each for part in parts for each in getattr(part, name)] for name in _OF_PROMPTS}
    values = {site: torch.cat([part.values[site] for part in parts]) for site in parts[0].values}
    return _with(parts[0], everyone, values=values, row=np.concatenate(rows))


#: What of clean runs is a list with an item a prompt.
_OF_PROMPTS = ("prompts", "tokens", "places", "targets", "argmax")


def _some(clean: CleanRuns, indices: Sequence[int], sites: Sequence[Component]) -> CleanRuns:
    """What the clean runs of some prompts leave at some sites."""
    some = {name: [getattr(clean, name)[index] for index in indices] for name in _OF_PROMPTS}
    values = {site: clean.values[site] for site in sites}
    return _with(clean, some, sites=sites, values=values, row=clean.row[list(indices)])


def _with(clean: CleanRuns, of_prompts: dict[str, list], **changed: Any) -> CleanRuns:
    """`clean` with other values, whose means aren't known yet."""
    return replace(clean, **{**of_prompts, **changed, "_means": {}})
