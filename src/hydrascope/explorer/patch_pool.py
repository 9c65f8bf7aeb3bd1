"""Run the prompts that patches come from once, and add one more prompt to them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations, collect_clean_activations, plain_pass
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import AblationPositions, resolve_positions
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, Prompt, PromptSet
from hydrascope.prompts.subjects import found_subject
from hydrascope.prompts.token_ids import tokenize
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: How many prompts are run at a time.
_BATCH = 16


class Pool:
    """A prompt set with its clean activations at the last position and, if asked for, at all.

    Attributes:
        said: notices about prompts of the set that were changed or left out.
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
        """Return the prompts to measure, and the index of the question's own prompt among them.

        A prompt of the set keeps its index, and another is the last. Left out are prompts that are too short for the
        ablated positions, and those without a subject if subjects are ablated. A prompt that its own counterfactual
        patches is alone.

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
        """Return the question's prompt, with its subject from the set unless another is typed."""
        own = question.prompt()
        known = next((prompt for prompt in self.prompts.prompts if prompt.text == own.text), own)
        return replace(own, subject=own.subject or known.subject)

    def _fitting(self, question: Question) -> list[int]:
        """Return the prompts of the set that have the positions which the question ablates."""
        if question.at_subject:
            return self._with_subject
        longest = -min(question.positions(), default=-1)
        return [index for index, ids in enumerate(self.tokens) if len(ids) >= longest]

    @cached_property
    def _with_subject(self) -> list[int]:
        return [index for index, prompt in enumerate(self.prompts.prompts) if found_subject(self.model, prompt)]

    def _require_others(self, question: Question, others: int) -> None:
        ablation = question.make_ablation()
        needed = ablation.patches if ablation.uses_other_prompts else 0
        if others < needed:
            raise HydrascopeError(
                f"{needed} patches at the subject need as many other prompts with a subject, and of the "
                f"{len(self.prompts.prompts):,} that patches come from {others} have one: give others, ask for fewer "
                "patches, or ablate by zero or noise"
            )

    def warm(self, monitor: JobMonitor) -> None:
        """Run all prompts, and keep the activations of sublayers and heads at the last position."""
        self._at("last", (), monitor)

    def clean_runs(self, plan: Plan, index: int, question: Question, monitor: JobMonitor) -> CleanActivations:
        """Return the clean activations of a plan's prompts; the question's own is at `index`."""
        last = plan.positions[index].positions == (len(plan.tokens[index]) - 1,)
        at = "last" if last and not question.at_subject else "all"
        parts = [self._own(plan, index, at)]
        if len(plan.tokens) > 1:
            pool = self._at(at, plan.sites, monitor).select(self._fitting(question), plan.sites)
            pool = pool.realign(plan.positions[: len(pool.tokens)])
            parts = [pool] if len(pool.tokens) == len(plan.tokens) else [pool, *parts]
        found = CleanActivations.concatenate(parts)
        targets = [plan.target] * len(plan.tokens) if isinstance(plan.target, int) else found.argmax
        return replace(found, targets=targets)

    def _own(self, plan: Plan, index: int, at: str) -> CleanActivations:
        """Return the clean activations of the prompt at `index`, kept for further questions."""
        key = plan.prompts.prompts[index], plan.positions[index]
        if key != self._last[0] or not self._last[1].values.keys() >= set(plan.sites):
            sites = list(dict.fromkeys([*(_anywhere(self.model) if at == "last" else ()), *plan.sites]))
            self._last = key, self._together([key[0]], [plan.tokens[index]], [key[1]], sites)
        own: CleanActivations = self._last[1]
        return own.select([0], plan.sites)

    def _at(self, at: str, sites: Sequence[Component], monitor: JobMonitor) -> CleanActivations:
        """Return the clean activations of all prompts at `sites`, kept for further questions."""
        before = self._kept.get(at)
        # At one position they are few enough to be kept of all sublayers and heads.
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
        found = CleanActivations.concatenate(parts).select(np.argsort(order).tolist(), missing)
        self._kept[at] = found if before is None else replace(found, values={**before.values, **found.values})
        return self._kept[at]

    def _together(
        self,
        prompts: Sequence[Prompt],
        tokens: Sequence[Sequence[int]],
        positions: Sequence[AblationPositions],
        sites: Sequence[Component],
    ) -> CleanActivations:
        """Run some prompts together, and return their clean activations at `sites`."""
        run = plain_pass(self.model, tokens, sites)
        return collect_clean_activations(self.model, prompts, tokens, positions, sites, [range(len(tokens))], run)


def _anywhere(model: LanguageModel) -> list[Component]:
    heads = [model.units(sublayer)[0].site for sublayer in model.sublayers if sublayer.kind == "attn"]
    return [*model.sublayers, *heads]
