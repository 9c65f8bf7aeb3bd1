"""The plan of a run: its options, checked to fit the model and the prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import numpy as np
import torch

from hydrascope.ablations.ablation import Ablation, Counterfactual, Resample, require_ablation, require_drawable
from hydrascope.components.component import Component, Override
from hydrascope.components.experiments import Experiment, Split, result_kind
from hydrascope.components.selection import Selection, select_components, select_overrides
from hydrascope.engines import Engine, choose_engine
from hydrascope.engines.balance import may_change
from hydrascope.engines.clean.activations import CleanActivations, without_activations
from hydrascope.engines.kernels import hardware
from hydrascope.engines.kernels.differences import (
    Products,
    copied_bytes,
    drop_changed_copies,
    require_differences,
)
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.kernels.patching import fastest_routines
from hydrascope.engines.metrics import Metric, resolve_metrics
from hydrascope.engines.override_change import sites_of_change
from hydrascope.engines.readouts import LogitDifference, Readout, Readouts, Tokens, require_readouts
from hydrascope.engines.whole_answers import continued
from hydrascope.loading import self_check
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch, Load, MemoryBudget
from hydrascope.prompts.answers import answer_tokens, foil_tokens, whole_answers
from hydrascope.prompts.positions import AblationPositions, format_positions, resolve_positions
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, PromptSet, prompt_label
from hydrascope.prompts.token_line import tokens_line
from hydrascope.runs.config import KEEP_BYTES, BatchSize, Keep, SweepConfig, Target
from hydrascope.storage.schema import MEASURED_VARIABLES
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted

_BY_PATCH, _MEANS = "unembed_ablated_by_patch", ("unembed_ablated", "unembed_ablated_own")


@dataclass(frozen=True)
class Plan:
    """The options of a run, checked to fit the model and the prompts.

    Attributes:
        tokens, positions: the token ids of each prompt, and its ablated positions.
        overrides: measured one by one.
        units: the heads, neurons and terms of dictionaries that are read besides all sublayers.
        answers, foils: first tokens of each prompt's, where readouts or the target need them.
        whole_answers: all tokens of each prompt's answer, where a metric reads them.
        notices: lines about prompts that were changed or left out.
        selection_attrs: the selections as they were given.
        routines: the matrix products of the wavefront engine.
        products: how it multiplies rows by weights.
    """

    model: LanguageModel
    prompts: PromptSet
    tokens: list[list[int]]
    positions: tuple[AblationPositions, ...]
    ablation: Ablation
    overrides: tuple[Override, ...]
    units: tuple[Component, ...]
    readouts: tuple[Readout, ...]
    metrics: tuple[Metric, ...]
    target: Target
    answers: list[int]
    foils: list[int]
    whole_answers: list[list[int]]
    engine: Engine
    keep: Keep
    notices: tuple[str, ...]
    selection_attrs: dict[str, str]
    routines: Routines
    products: Products = "float32"

    @property
    def describe(self) -> list[str]:
        """Return the notices, the first prompt's tokens, and one line that says what is measured."""
        model, sizes = self.model, self.sizes
        what = (
            f"{model.name}: {counted(sizes['ablated'], 'ablation', 'ablations')} of "
            f"{counted(sizes['patch'], 'patch', 'patches')}, {counted(sizes['component'], 'component', 'components')} "
            f"read, {counted(sizes['prompt'], 'prompt', 'prompts')}, {self.engine.name} engine ({self.engine.reason}), "
            f"{str(model.dtype).removeprefix('torch.')} on {model.device.type}"
        )
        dtype = torch.bfloat16 if self.products == "bfloat16-differences" else model.dtype
        slower = hardware.slower_than_float32(dtype) if model.device.type == "cpu" else None
        narrow = (
            slower
            and f"products in {str(dtype).removeprefix('torch.')} take {slower:.1f} times as long here as in float32"
        )
        first = f"first prompt: {tokens_line(model, self.tokens[0])}"
        fit = getattr(self.ablation, "notice", None)
        return [line for line in (*self.notices, *self.dictionary_notices, first, what, narrow, fit) if line]

    @property
    def dictionary_notices(self) -> list[str]:
        """Return a line for each dictionary whose training prompts began otherwise than these."""
        with_bos, count = self.prompts_with_bos, len(self.tokens)
        return [
            f"{each.label} was trained on prompts that {'begin' if each.begins_with_bos else 'do not begin'} with BOS; "
            f"{counted(with_bos, 'prompt', 'prompts')} of {count:,} here {'does' if with_bos == 1 else 'do'}"
            for each in (attached.declared for attached in self.model.dictionaries.values())
            if each.begins_with_bos is not None and with_bos != (count if each.begins_with_bos else 0)
        ]

    @property
    def dtype(self) -> str:
        """Return the dtype of the numbers in the result."""
        return "float64" if self.model.dtype == torch.float64 else "float32"

    @property
    def components(self) -> tuple[Component, ...]:
        """Return all components that are read."""
        return self.model.sublayers + self.units

    @cached_property
    def sites(self) -> tuple[Component, ...]:
        """Return the sites of ablated components, and others that the ablation draws from."""
        ablated = [component.site for override in self.overrides for component in override.ablated]
        # A part is written by the whole sublayer.
        for override in self.overrides:
            if override.part:
                ablated += [*override.at_sublayers.ablated, *sites_of_change(self.model, override.ablated)]
        return tuple(dict.fromkeys((*ablated, *getattr(self.ablation, "sites", ()))))

    @cached_property
    def whole(self) -> tuple[int, ...]:
        """Return the places of the overrides that write whole patches, not parts of changes."""
        return tuple(place for place, override in enumerate(self.overrides) if not override.part)

    @cached_property
    def may_change(self) -> torch.Tensor:
        """Return the sublayers that may change `[override, sublayer]`."""
        return may_change(self.model, self.overrides)

    @property
    def patches_from_twins(self) -> bool:
        """Whether patches come from each prompt's counterfactual."""
        return type(self.ablation) is Counterfactual

    @property
    def rewrites_streams(self) -> bool:
        """Whether terms of residual streams are overridden."""
        return any(each.place == "stream" for override in self.overrides for each in override.overridden)

    @property
    def labels(self) -> list[str]:
        """Return the labels of all readouts."""
        return [label for readout in self.readouts for label in readout.labels]

    @property
    def sizes(self) -> dict[str, int]:
        """Return the length of each dimension of the result."""
        return {
            "readout": len(self.labels),
            "prompt": len(self.tokens),
            "ablated": len(self.overrides),
            "patch": self.ablation.patches,
            "component": len(self.components),
            "metric": len(self.metrics),
        }

    @cached_property
    def measured_variables(self) -> dict[str, tuple[str, ...]]:
        """Return the measured variables and their dimensions."""
        left_out = [] if self.metrics else ["metric_clean", "metric_ablated"]
        left_out += [] if self.patches_from_twins else ["logit_twin"]
        left_out += [] if self.rewrites_streams else ["own"]
        left_out += {"effects": [_BY_PATCH, *_MEANS], "means": [_BY_PATCH], "patches": []}[self.kept]
        return {name: variable.dims for name, variable in MEASURED_VARIABLES.items() if name not in left_out}

    @cached_property
    def kept(self) -> str:
        """Return what is kept of the writes: as asked for, or what fits."""
        if self.keep != "auto":
            return self.keep
        kind = result_kind(self.selection_attrs)
        if kind == "interactions":
            return "effects"
        only_layers = not self.units and not any(
            c.is_unit or c.is_term for override in self.overrides for c in override.overridden
        )
        sizes = [self.sizes[dim] for dim in MEASURED_VARIABLES[_BY_PATCH].dims]
        small = float(np.prod(sizes)) * np.dtype(self.dtype).itemsize <= KEEP_BYTES
        return "patches" if only_layers and small and kind == "sweep" else "means"

    def batch(self, asked: BatchSize) -> Batch:
        """Return the batch: as many prompts as asked for, or what memory allows.

        Raises:
            HydrascopeError: fewer than one prompt is asked for, or so many patches that no memory holds one
                override.
        """
        self.memory.require_possible()
        if asked != "auto":
            if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
                raise HydrascopeError(f"a batch of {asked!r} prompts: ask for auto, or at least 1")
            return Batch(min(asked, len(self.tokens)), len(self.overrides))
        return self.memory.batch()

    @cached_property
    def lengths(self) -> list[int]:
        """Return the number of tokens that are run of each prompt, those of its answer among them."""
        if not self.whole_answers:
            return list(map(len, self.tokens))
        return [len(continued(ids, answer)) for ids, answer in zip(self.tokens, self.whole_answers, strict=True)]

    @property
    def answer_metrics(self) -> tuple[Metric, ...]:
        """Return the metric of whole answers, if it is measured."""
        return tuple(metric for metric in self.metrics if metric.of_answer)

    def answers_of(self, prompts: Sequence[int]) -> list[list[int]]:
        """Return the whole answers of some prompts; nothing where no metric reads them."""
        return [self.whole_answers[index] for index in prompts] if self.whole_answers else []

    @cached_property
    def memory(self) -> MemoryBudget:
        """Return the memory that the run may take, by the longest prompt."""
        lengths = self.lengths
        longest = max(lengths)
        suffix = max(length - positions.positions[0] for length, positions in zip(lengths, self.positions, strict=True))
        reads = len(self.components) * len(self.labels)
        load = Load(longest, suffix, len(self.overrides), self.ablation.patches, reads)
        columns = sum(self.model.site_width(site) for site in self.sites)
        rows = sum(len(positions.positions) for positions in self.positions)
        copies = copied_bytes(self.model) if self.products == "bfloat16-differences" else 0
        return MemoryBudget(self.model, load, rows * columns * self.model.dtype.itemsize, copies)

    def require_drawable(self) -> None:
        """Check before anything is run that patches can be drawn, as far as that shows.

        Raises:
            HydrascopeError: some can't.
        """
        require_drawable(
            self.ablation, without_activations(self.model, self.prompts.prompts, self.tokens, self.positions)
        )

    @property
    def reads_runner_up(self) -> bool:
        """Whether a difference is read to the runner-up, since no prompt has a foil."""
        return not self.foils and any(isinstance(each, LogitDifference) for each in self.readouts)

    @property
    def prompts_with_bos(self) -> int:
        """Return the number of prompts that begin with the tokenizer's BOS."""
        bos = getattr(self.model.tokenizer, "bos_token_id", None)
        return sum(bos is not None and ids[0] == bos for ids in self.tokens)

    def prompt_label(self, index: int) -> str:
        """Return the name of the prompt at `index` in messages."""
        return prompt_label(index + 1, self.prompts.prompts[index])

    def tokens_of(self, clean: CleanActivations) -> Tokens:
        """Return the tokens that readouts need."""
        return Tokens(clean.targets, self.answers, self.foils, clean.rivals)


def make_plan(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation | None = None, config: SweepConfig | None = None
) -> Plan:
    """Return the plan of a run.

    Raises:
        HydrascopeError: an option is unknown, or a prompt, a component or the engine doesn't fit the model.
    """
    config = config or SweepConfig()
    if not isinstance(model, LanguageModel):
        raise HydrascopeError(
            f"a {type(model).__name__} is no model to measure: give hs.load_model(model, tokenizer), or "
            "hs.load_model(name)"
        )
    self_check.revalidate_if_changed(model)
    ablation = Resample() if ablation is None else ablation
    require_ablation(ablation)
    readouts = require_readouts(config.readouts)
    _require_target(model, config.target)
    if config.keep not in get_args(Keep):
        raise HydrascopeError(f"unknown keep {config.keep!r}: choose {', '.join(get_args(Keep))}")
    overrides, selection_attrs = _overrides(model, config)
    read = dict.fromkeys(select_components(model, config.read))
    if isinstance(config.ablate, Experiment):
        read |= dict.fromkeys(config.ablate.reads(model))
    engine = choose_engine(model, config.engine)
    if config.products not in get_args(Products):
        raise HydrascopeError(f"unknown products {config.products!r}: choose {', '.join(get_args(Products))}")
    if config.products == "bfloat16-differences":
        require_differences(model, engine.name)
        drop_changed_copies(model)
    # One metric may be given alone.
    single = isinstance(config.metrics, str) or not isinstance(config.metrics, Sequence)
    metrics = resolve_metrics([config.metrics] if single else config.metrics)  # type: ignore[arg-type,list-item]
    # A text may be the name of a set, which is refused where prompts are prepared.
    given = prompts if isinstance(prompts, str) else PromptSet.of(prompts)
    has_foils = isinstance(given, PromptSet) and given.has_foils
    # Without foils the difference is one to the runner-up.
    needing = [each for each in readouts if has_foils or not isinstance(each, LogitDifference)]
    needs = {need for readout in needing for need in readout.needs}
    needs |= {"answer"} if config.target == "answer" else set()
    in_pairs = has_foils and config.target != "answer" and all(len(readout.needs) != 1 for readout in readouts)
    prepared = prepare(model, given, answered="no" if not needs else "in pairs" if in_pairs else "alone")
    ready = prepared.prompts.prompts
    answers = answer_tokens(model, ready, in_pairs=in_pairs) if needs else []
    foils = foil_tokens(model, ready, in_pairs=in_pairs) if "foil" in needs else []
    plan = Plan(
        model=model,
        prompts=prepared.prompts,
        tokens=prepared.tokens,
        positions=resolve_positions(model, ready, prepared.tokens, config.at),
        ablation=ablation,
        overrides=overrides,
        units=tuple(component for component in read if component.is_unit or component.is_term),
        readouts=tuple(readouts),
        metrics=metrics,
        target=config.target,
        answers=answers,
        foils=foils,
        whole_answers=whole_answers(model, ready) if any(metric.of_answer for metric in metrics) else [],
        engine=engine,
        keep=config.keep,
        notices=prepared.notes,
        selection_attrs={
            **selection_attrs,
            "read": _selection(config.read),
            "positions": format_positions(config.at),
        },
        routines=fastest_routines(model) if engine.name == "wavefront" else {},
        products=config.products,
    )
    _require_room_for_answers(plan)
    _require_last_for_parts(plan)
    # Refuses readouts that don't fit before anything is run; their tokens make no difference to that.
    Readouts.of(model, plan.readouts, nowhere(plan), [0])
    if len(set(plan.labels)) < len(plan.labels):
        twice = max(plan.labels, key=plan.labels.count)
        raise HydrascopeError(
            f"two readouts are called {twice!r}: give a Direction a name of its own, or leave one out"
        )
    if isinstance(config.ablate, Split):
        # Labels are known to be right only now.
        return replace(plan, overrides=config.ablate.overrides(model, plan.labels))
    return plan


def nowhere(plan: Plan) -> Tokens:
    """Return tokens for readouts while targets are unknown: other ones, as many."""
    count = len(plan.tokens)
    return Tokens([0] * count, plan.answers, plan.foils, [1] * count)


def _require_target(model: LanguageModel, target: Target) -> None:
    if target not in ("argmax", "answer") and (not isinstance(target, int) or isinstance(target, bool)):
        raise HydrascopeError(f"unknown target {target!r}: choose argmax or answer, or give a token's id")
    if isinstance(target, int) and not 0 <= target < model.vocabulary:
        raise HydrascopeError(f"{model.name} has no token {target} to target: it has 0 to {model.vocabulary - 1}")


def _require_last_for_parts(plan: Plan) -> None:
    """Refuse parts of changes at other positions than the last, where readouts are."""
    if len(plan.whole) < len(plan.overrides) and any(
        at.positions != (len(ids) - 1,) for at, ids in zip(plan.positions, plan.tokens, strict=True)
    ):
        raise HydrascopeError("a split is of what is written at the last position: leave the positions at last")


def _require_room_for_answers(plan: Plan) -> None:
    limit = plan.model.context_length
    for index, length in enumerate(plan.lengths):
        if limit is not None and length > limit:
            raise HydrascopeError(
                f"{plan.prompt_label(index)} and its answer are {length:,} tokens long without the last, the context "
                f"of {plan.model.name} holds {limit:,}: shorten it, or leave out the metric answer_log_prob"
            )


def _overrides(model: LanguageModel, config: SweepConfig) -> tuple[tuple[Override, ...], dict[str, str]]:
    """Return the overrides of a run, without parts by readouts, and their attributes."""
    if isinstance(config.ablate, Split):
        return config.ablate.overrides(model, ()), config.ablate.settings(model)
    if isinstance(config.ablate, Experiment):
        return config.ablate.overrides(model), config.ablate.settings(model)
    return select_overrides(model, config.ablate), {"ablate": _selection(config.ablate)}


def _selection(selection: Selection) -> str:
    given = [selection] if isinstance(selection, str | Component | Override) else selection
    return ",".join(map(str, given))
