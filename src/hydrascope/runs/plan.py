"""What is to be measured, decided before any of it is: the arguments of a run, found to fit together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch

from hydrascope.ablations.ablation import Ablation, Resample, require_ablation, require_drawable
from hydrascope.components.component import Component, Override
from hydrascope.components.experiments import Experiment
from hydrascope.components.selection import Selection, select_components, select_overrides
from hydrascope.engines import Engine, choose_engine
from hydrascope.engines.balance import may_change
from hydrascope.engines.clean.activations import CleanActivations, without_activations
from hydrascope.engines.kernels import hardware
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.kernels.patching import fastest_routines
from hydrascope.engines.metrics import Metric, MetricFunction, resolve_metrics
from hydrascope.engines.readouts import Readout, Readouts, Tokens, require_readouts
from hydrascope.loading import self_check
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch, Load, automatic_batch, require_possible
from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.positions import AblationPositions, At, format_positions, resolve_positions
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, PromptSet, prompt_label
from hydrascope.runs.config import KEEP_BYTES, TARGET_LOGIT, Keep, Target
from hydrascope.storage.schema import MEASURED_VARIABLES
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted

_BY_PATCH, _MEANS = "unembed_ablated_by_patch", ("unembed_ablated", "unembed_ablated_own")


@dataclass(frozen=True)
class Plan:
    """What is to be measured: arguments of `hydrascope.sweep`, found to fit together.

    Attributes:
        tokens, positions: of each prompt, its token ids and where it is ablated.
        overrides: what is ablated and frozen, one by one.
        units: the heads and neurons that are read besides all layers.
        answers, foils: tokens of each prompt, where readouts or the target need them.
        notices: what is to be told of the prompts.
        selection_attrs: the selections as they were given.
        routines: how the wavefront engine multiplies.
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
    engine: Engine
    keep: Keep
    notices: tuple[str, ...]
    selection_attrs: dict[str, str]
    routines: Routines

    @property
    def describe(self) -> list[str]:
        """What is measured, in a line, after what is to be told of the prompts."""
        model, sizes = self.model, self.sizes
        what = (
            f"{model.name}: {counted(sizes['ablated'], 'ablation', 'ablations')} of "
            f"{counted(sizes['patch'], 'patch', 'patches')}, {counted(sizes['component'], 'component', 'components')} "
            f"read, {counted(sizes['prompt'], 'prompt', 'prompts')}, {self.engine.name} engine ({self.engine.reason}), "
            f"{str(model.dtype).removeprefix('torch.')} on {model.device.type}"
        )
        slower = hardware.slower_than_float32(model.dtype) if model.device.type == "cpu" else None
        narrow = (
            slower
            and f"products in {str(model.dtype).removeprefix('torch.')} take {slower:.1f} times as long here as in "
            "float32"
        )
        return [line for line in (*self.notices, what, narrow) if line]

    @property
    def dtype(self) -> str:
        """The dtype of the numbers in the result."""
        return "float64" if self.model.dtype == torch.float64 else "float32"

    @property
    def components(self) -> tuple[Component, ...]:
        """Everything that is read."""
        return self.model.sublayers + self.units

    @cached_property
    def sites(self) -> tuple[Component, ...]:
        """Where the values of what is ablated stand, and others that the ablation draws from."""
        ablated = (component.site for override in self.overrides for component in override.ablated)
        return tuple(dict.fromkeys((*ablated, *getattr(self.ablation, "sites", ()))))

    @cached_property
    def may_change(self) -> torch.Tensor:
        """`[run, layer]` Which layers may change."""
        return may_change(self.model, self.overrides)

    @property
    def labels(self) -> list[str]:
        """What the readings are called."""
        return [label for readout in self.readouts for label in readout.labels]

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each dimension of the result."""
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
        """The variables that are measured, and their dimensions."""
        left_out = [] if self.metrics else ["metric_clean", "metric_ablated"]
        left_out += {"effects": [_BY_PATCH, *_MEANS], "means": [_BY_PATCH], "patches": []}[self.kept]
        return {name: variable.dims for name, variable in MEASURED_VARIABLES.items() if name not in left_out}

    @cached_property
    def kept(self) -> str:
        """What is kept of what parts write: as asked for, or what suits what is asked."""
        if self.keep != "auto":
            return self.keep
        if self.selection_attrs.get("experiment") == "interactions":
            return "effects"
        only_layers = not self.units and not any(c.is_unit for override in self.overrides for c in override.overridden)
        sizes = [self.sizes[dim] for dim in MEASURED_VARIABLES[_BY_PATCH].dims]
        small = float(np.prod(sizes)) * np.dtype(self.dtype).itemsize <= KEEP_BYTES
        return "patches" if only_layers and small and "experiment" not in self.selection_attrs else "means"

    def batch(self, asked: int | Literal["auto"]) -> Batch:
        """How much to measure at a time: as many prompts as asked for, or what memory allows.

        Raises:
            HydrascopeError: fewer than one prompt is asked for, or so many patches that no memory holds one run.
        """
        require_possible(self.model, self.load)
        if asked != "auto":
            if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
                raise HydrascopeError(f"a batch of {asked!r} prompts: ask for auto, or at least 1")
            return Batch(min(asked, len(self.tokens)), len(self.overrides))
        return automatic_batch(self.model, self.load, self.bank_bytes)

    @property
    def load(self) -> Load:
        """What the runs of the longest prompt need memory for."""
        longest = max(map(len, self.tokens))
        suffix = max(
            len(ids) - positions.positions[0] for ids, positions in zip(self.tokens, self.positions, strict=True)
        )
        reads = len(self.components) * len(self.labels)
        return Load(longest, suffix, len(self.overrides), self.ablation.patches, reads)

    @property
    def bank_bytes(self) -> int:
        """Bytes of the clean values that patches are drawn from."""
        widths = [self.model.site_width(site) for site in self.sites]
        places = sum(len(positions.positions) for positions in self.positions)
        return places * sum(widths) * self.model.dtype.itemsize

    def require_drawable(self) -> None:
        """Find out before anything is run whether patches can be drawn, as far as that shows.

        Raises:
            HydrascopeError: some can't.
        """
        require_drawable(
            self.ablation, without_activations(self.model, self.prompts.prompts, self.tokens, self.positions)
        )

    def prompt_label(self, index: int) -> str:
        """How an error calls the prompt at `index`."""
        return prompt_label(index + 1, self.prompts.prompts[index])

    def tokens_of(self, clean: CleanActivations) -> Tokens:
        """What readouts speak of."""
        return Tokens(clean.targets, self.answers, self.foils)


def make_plan(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection | Experiment = "layers",
    read: Selection = "layers",
    at: At = "last",
    readouts: Readout | Sequence[Readout] = TARGET_LOGIT,
    metrics: str | MetricFunction | Sequence[str | MetricFunction] = (),
    target: Target = "argmax",
    keep: Keep = "auto",
    engine: str = "auto",
) -> Plan:
    """The plan of these arguments of `hydrascope.sweep`.

    Raises:
        HydrascopeError: an option is unknown, or a prompt, a part or the engine doesn't fit the model.
    """
    if not isinstance(model, LanguageModel):
        raise HydrascopeError(
            f"a {type(model).__name__} is no model to measure: give hs.load_model(model, tokenizer), or "
            "hs.load_model(name)"
        )
    self_check.revalidate_if_changed(model)
    ablation = Resample() if ablation is None else ablation
    require_ablation(ablation)
    readouts = require_readouts(readouts)
    if target not in ("argmax", "answer") and (not isinstance(target, int) or isinstance(target, bool)):
        raise HydrascopeError(f"unknown target {target!r}: choose argmax or answer, or give a token's id")
    if isinstance(target, int) and not 0 <= target < model.vocabulary:
        raise HydrascopeError(f"{model.name} has no token {target} to target: it has 0 to {model.vocabulary - 1}")
    if keep not in get_args(Keep):
        raise HydrascopeError(f"unknown keep {keep!r}: choose {', '.join(get_args(Keep))}")
    # One of them may stand alone.
    metrics = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
    if isinstance(ablate, Experiment):
        overrides, of_runs = ablate.overrides(model), ablate.settings(model)
    else:
        overrides, of_runs = select_overrides(model, ablate), {"ablate": _selection(ablate)}
    components = dict.fromkeys(select_components(model, read))
    if isinstance(ablate, Experiment):
        components |= dict.fromkeys(ablate.reads(model))
    engine_ = choose_engine(model, engine)
    needs = {need for readout in readouts for need in readout.needs} | ({"answer"} if target == "answer" else set())
    in_pairs = target != "answer" and all(len(readout.needs) != 1 for readout in readouts)
    prepared = prepare(model, prompts, answered="no" if not needs else "in pairs" if in_pairs else "alone")
    fitted, tokens = prepared.prompts, prepared.tokens
    answers = answer_tokens(model, fitted.prompts, in_pairs=in_pairs) if needs else []
    foils = foil_tokens(model, fitted.prompts, in_pairs=in_pairs) if "foil" in needs else []
    plan = Plan(
        model,
        fitted,
        tokens,
        resolve_positions(model, fitted.prompts, tokens, at),
        ablation,
        overrides,
        tuple(component for component in components if component.is_unit),
        tuple(readouts),
        resolve_metrics(metrics),
        target,
        answers,
        foils,
        engine_,
        keep,
        prepared.notes,
        {**of_runs, "read": _selection(read), "positions": format_positions(at)},
        fastest_routines(model) if engine_.name == "wavefront" else {},
    )
    # What doesn't fit is said before anything is run; which tokens they are of makes no difference to that.
    Readouts.of(model, plan.readouts, Tokens([0] * len(tokens), answers, foils), [0])
    if len(set(plan.labels)) < len(plan.labels):
        twice = max(plan.labels, key=plan.labels.count)
        raise HydrascopeError(
            f"two readouts are called {twice!r}: give a Direction a name of its own, or leave one out"
        )
    return plan


def _selection(selection: Selection) -> str:
    given = [selection] if isinstance(selection, str | Component | Override) else selection
    return ",".join(map(str, given))
