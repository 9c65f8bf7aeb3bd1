"""Repair flows that were never measured, consistent in their sums."""

from collections.abc import Mapping, Sequence

import numpy as np

from hydrascope.reports.flow.repair import Head, Mediator, RepairFlow, Source, Sublayer
from hydrascope.reports.summary.interval import UNKNOWN, Interval


def around(value: float, width: float = 0.01, bounded: bool = True) -> Interval:
    """An interval around a value; without bounds on a single prompt."""
    return Interval(value, value - width, value + width) if bounded else Interval(value, np.nan, np.nan)


def made_up(
    depth: int = 6,
    ablated: str = "attn.1",
    removed: float = 1.0,
    responses: Mapping[str, float] | None = None,
    norm: float = 0.0,
    *,
    necessary: Sequence[str] = (),
    sufficient: Sequence[str] = (),
    by_norm: Sequence[str] = (),
    mediated: bool = True,
    bounded: bool = True,
    width: float = 0.01,
    clean: Mapping[str, float] | None = None,
    parallel: bool = False,
    also: Sequence[str] = (),
    frozen: Sequence[str] = (),
    model: str = "a model",
    unit: str = "logits",
    heads: Mapping[str, float] | None = None,
) -> RepairFlow:
    """A flow in which `responses` are what sublayers write more, and the rest of what is removed is lost.

    `heads` are what some heads of theirs write more, of 9 heads in 3 groups.
    """
    responses, clean = responses or {}, clean or {}
    labels = [f"{kind}.{block}" for block in range(depth) for kind in ("attn", "mlp")]
    holder = {label: label.replace("head", "attn").rsplit(".", label.count(".") - 1)[0] for label in (ablated, *also)}
    first = min(labels.index(each) for each in holder.values())

    def follows(label: str) -> bool:
        block = labels.index(label) // 2
        below = labels.index(label) > first if not parallel else block > first // 2
        return below and label not in holder.values() and label not in frozen

    moved = {label: responses.get(label, 0.0) for label in labels if follows(label)}
    by_kind = {kind: sum(value for label, value in moved.items() if label.startswith(kind)) for kind in ("attn", "mlp")}
    restored = sum(by_kind.values()) + norm
    sublayers = tuple(
        Sublayer(
            label,
            label.split(".")[0],
            int(label.split(".")[1]),
            follows(label),
            label in holder.values(),
            label in frozen,
            around(clean.get(label, 0.5), bounded=bounded),
            around(moved[label], width, bounded) if follows(label) else UNKNOWN,
        )
        for label in labels
    )
    mediators = tuple(
        Mediator(
            label,
            around(0.4 * removed if label in necessary else 0.0),
            around(0.3 * removed if label in sufficient else 0.0),
            around(0.0),
            around(0.0),
            around(0.35 * removed if label in by_norm else 0.0),
            label in necessary,
            label in sufficient,
        )
        for label in [*moved, *(heads or ())]
        if mediated
    )
    placed = sorted([*map(int, label.split(".")[1:]), value] for label, value in (heads or {}).items())
    read = tuple(
        Head(f"head.{block}.{unit}", block, unit // 3, around(0.1, bounded=bounded), around(value, width, bounded))
        for block, unit, value in placed
        if follows(f"attn.{block}")
    )
    share = around(restored / removed, bounded=bounded) if removed else UNKNOWN
    source = Source(
        model, "sha256:0123456789", "", "facts.json", 100 if bounded else 1, "f" * 40, "zero", 1, "last", "logit", unit,
        "clean", depth, parallel, "0.1.0", "logit, at the clean run’s σ",
    )  # fmt: skip
    return RepairFlow(
        source=source,
        ablated="+".join((ablated, *also)) + "".join(f"|{each}" for each in frozen),
        components=(ablated, *also),
        confidence=0.95,
        removed=around(removed, 0.1 * abs(removed), bounded),
        written=around(clean.get(ablated, 0.5)),
        attention=around(by_kind["attn"], bounded=bounded),
        mlp=around(by_kind["mlp"], bounded=bounded),
        norm=around(norm, bounded=bounded),
        lost=around(removed - restored, bounded=bounded),
        restored=around(restored, bounded=bounded),
        share=share,
        lost_share=around(1 - restored / removed, bounded=bounded) if removed else UNKNOWN,
        half=7,
        sublayers=sublayers,
        mediators=mediators,
        heads=read,
        heads_each=9,
    )
