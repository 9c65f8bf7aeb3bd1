"""The numbers of one ablation on one readout: removed, made up for by whom, lost."""

import json
from dataclasses import asdict, dataclass

from hydrascope.reports.flow.source import Source
from hydrascope.reports.summary.interval import UNKNOWN, Interval
from hydrascope.reports.summary.serialize import plain


@dataclass(frozen=True)
class Sublayer:
    """One sublayer and its response, means over prompts in the readout's unit.

    Attributes:
        label: its label: `mlp.29`.
        kind: `attn` or `mlp`.
        block: its block, counted from 0.
        downstream: whether it can respond.
        ablated: whether it is ablated, in whole or in part.
        frozen: whether it is frozen by the user (`attn.3|mlp.5`).
        clean: the amount that it writes in the clean pass.
        response: the change of this amount; bounds hold for all sublayers downstream at once. Unknown if it isn't
            downstream.
    """

    label: str
    kind: str
    block: int
    downstream: bool
    ablated: bool
    frozen: bool
    clean: Interval
    response: Interval


@dataclass(frozen=True)
class Head:
    """One head that can respond, means over prompts in the readout's unit.

    Attributes:
        label: its label: `head.24.1`.
        block: its block, counted from 0.
        group: the index of its keys and values among those of the block; −1 if it isn't known.
        clean: the amount that it writes in the clean pass.
        response: the change of this amount; bounds hold for all heads downstream at once.
    """

    label: str
    block: int
    group: int
    clean: Interval
    response: Interval


@dataclass(frozen=True)
class Mediator:
    """One mediator of the ablation, from frozen runs; means over prompts in the readout's unit.

    Bounds hold for all mediators at once. `itself`, `others` and `norm` add up to `restored_by`.

    Attributes:
        label: its label: a sublayer, a head, or an input of a head.
        restored_by: the amount that is lost again when it is frozen.
        restored_alone: the amount that it brings back if everything else downstream is frozen.
        itself: the part of `restored_by` that it writes itself.
        others: the part that other sublayers write because of it.
        norm: the part by the final norm.
        necessary: whether `restored_by` is surely above 0, and at least 5% of what is removed
            (`verdict_text.NOTABLE`).
        sufficient: the same of `restored_alone`.
    """

    label: str
    restored_by: Interval
    restored_alone: Interval
    itself: Interval
    others: Interval
    norm: Interval
    necessary: bool
    sufficient: bool


@dataclass(frozen=True)
class RepairFlow:
    """One ablation and one readout: what is removed, who makes up for it, what is lost.

    All means are over prompts, all amounts in the readout's unit. `removed` = `attention` + `mlp` + `norm` + `lost`,
    and the responses of the sublayers of either kind add up to `attention` and `mlp`. All intervals have one level,
    `confidence`; bounds of a list of components hold for the whole list at once. Without several prompts, bounds are
    NaN.

    Attributes:
        source: the run.
        ablated: the label of the ablation.
        components: the labels of the components that are ablated.
        confidence: the level of all intervals.
        removed: the mean −`direct`.
        written: the amount that the ablated components write in the clean pass; unknown if they weren't read.
        attention: the amount that later attention sublayers make up for.
        mlp: the same of later MLPs.
        norm: the amount that the final norm makes up for: `norm` of `measures.budget`.
        lost: the mean −`total`.
        restored: removed − lost.
        share: restored/removed; without bounds where what is removed may be 0.
        lost_share: lost/removed, likewise.
        slope: the slope of restored on removed over prompts.
        compensation: the slope of CE on DE over prompts; unknown if the ablated components weren't read.
        held_out: `share` on prompts that had no say in the choice of the component; unknown if it wasn't chosen by the
            summary, or if the halves of the prompts disagree.
        rival: the component that the other half of the prompts chose; empty if they agree.
        half: the smallest number of prompts that hold half of what is removed in all; 0 if nothing is removed.
        sublayers: all sublayers, in the network's order.
        mediators: the mediators downstream, in the order of the mediation; empty without frozen runs.
        heads: the heads downstream that were read, in the network's order; their sublayers are in `sublayers`, too.
        heads_each: the number of heads of a block; 0 if it isn't known.
    """

    source: Source
    ablated: str
    components: tuple[str, ...]
    confidence: float
    removed: Interval
    written: Interval
    attention: Interval
    mlp: Interval
    norm: Interval
    lost: Interval
    restored: Interval
    share: Interval
    lost_share: Interval
    slope: Interval = UNKNOWN
    compensation: Interval = UNKNOWN
    held_out: Interval = UNKNOWN
    rival: str = ""
    half: int = 0
    sublayers: tuple[Sublayer, ...] = ()
    mediators: tuple[Mediator, ...] = ()
    heads: tuple[Head, ...] = ()
    heads_each: int = 0

    @property
    def mediated(self) -> bool:
        """Whether frozen runs were made."""
        return bool(self.mediators)

    @property
    def certain(self) -> bool:
        """Whether the amounts have bounds: not on a single prompt."""
        return self.removed.low == self.removed.low

    def mediator(self, label: str) -> Mediator | None:
        """Return the mediator with a label; None if no run froze it."""
        return next((each for each in self.mediators if each.label == label), None)

    def as_json(self) -> str:
        """Return all numbers as one JSON object; unknown numbers are null."""
        return json.dumps(plain(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)
