"""The rows of a trajectory, as numbers with confidence intervals and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap
from hydrascope.reports.summary.interval import Interval, digits_for, format_interval, number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.verdict_text import ASKED_NAME


@dataclass(frozen=True)
class TrajectoryRow:
    """The fate of one ablated component in one checkpoint.

    Attributes:
        readout: the readout's label.
        checkpoint: the label of the checkpoint.
        ablated: the label of the ablation.
        writes: whether it is a sublayer that surely writes for the readout.
        removed: the mean of −direct, in the readout's unit.
        lost: the mean of −total, in the readout's unit.
        restored: 1 − lost/removed; unknown where `removed` isn't surely above 0.
        restored_slope: the slope of total − direct on −direct over prompts.
        compensation_slope: the slope of CE on DE over prompts.
    """

    readout: str
    checkpoint: str
    ablated: str
    writes: bool
    removed: Interval
    lost: Interval
    restored: Interval
    restored_slope: Interval
    compensation_slope: Interval


@dataclass(frozen=True)
class KindRow:
    """The sublayers of one kind that surely write for the readout in one checkpoint.

    Attributes:
        readout: the readout's label.
        checkpoint: the label of the checkpoint.
        kind: the kind of sublayer.
        writers: the number of sublayers that surely write.
        ablated: the number of sublayers of the kind that were ablated.
        removed, restored_slope: medians over those that write.
        with_share: the number of sublayers that write and have a share restored in every checkpoint.
        restored: the median over these.
    """

    readout: str
    checkpoint: str
    kind: str
    writers: int
    ablated: int
    with_share: int
    removed: Interval
    restored: Interval
    restored_slope: Interval


def trajectory_rows(found: xr.Dataset) -> tuple[TrajectoryRow, ...]:
    """Return a row for each checkpoint and ablated component, in their order.

    >>> few = hs.measures.Bootstrap(resamples=50)
    >>> trajectory_rows(hs.measures.trajectory({"step1": results}, few))[0].checkpoint
    'step1'

    Args:
        found: the result of `hydrascope.measures.trajectory`.
    """
    names = ("removed", "lost", "restored", "restored_slope", "compensation_slope")
    return tuple(
        TrajectoryRow(
            str(found.attrs["readout"]),
            str(checkpoint),
            str(ablated),
            bool(found["writes"].values[row, column]),
            *(Interval.of(found[name].isel(checkpoint=row, ablated=column)) for name in names),
        )
        for row, checkpoint in enumerate(found["checkpoint"].values)
        for column, ablated in enumerate(found["ablated"].values)
    )


def kind_rows(found: xr.Dataset) -> tuple[KindRow, ...]:
    """Return a row for each kind of sublayer and checkpoint, one kind after the other.

    >>> few = hs.measures.Bootstrap(resamples=50)
    >>> [row.kind for row in kind_rows(hs.measures.trajectory({"step1": results}, few))]
    ['attn', 'mlp']

    Args:
        found: the result of `hydrascope.measures.trajectory`.
    """
    if "kind" not in found.coords:
        return ()
    ablated = [str(kind) for kind in found["ablated_kind"].values]
    return tuple(
        KindRow(
            str(found.attrs["readout"]),
            str(checkpoint),
            str(kind),
            int(found["writers"].values[row, column]),
            ablated.count(str(kind)),
            int(found["with_share"].values[row, column]),
            *(
                Interval.of(found[f"median_{name}"].isel(checkpoint=row, kind=column))
                for name in ("removed", "restored", "restored_slope")
            ),
        )
        for column, kind in enumerate(found["kind"].values)
        for row, checkpoint in enumerate(found["checkpoint"].values)
    )


def target_in_words(found: xr.Dataset) -> str:
    """Return which tokens the readout and its curves are of.

    Args:
        found: the result of `hydrascope.measures.trajectory`.
    """
    target, prompts = found.attrs.get("target"), str(found.attrs.get("prompts", "the prompts"))
    _, answered, last = prompts.rpartition(" answered by ")
    if target == "argmax":
        return "each checkpoint's own likeliest token, so a change may be one of the target"
    if target != "answer":
        return f"token {target} in all checkpoints"
    return f"the likeliest tokens of {last} in all checkpoints" if answered else "the prompts' answers"


def trajectory_in_text(
    found: xr.Dataset, rows: Sequence[TrajectoryRow], kinds: Sequence[KindRow], bootstrap: Bootstrap | None = None
) -> Group:
    """Return a table of the kinds of sublayers or, where none was ablated, of all components.

    Args:
        found: the result of `hydrascope.measures.trajectory`.
        rows: its `trajectory_rows`.
        kinds: its `kind_rows`.
        bootstrap: the resampling that gave the intervals.
    """
    title = "Self-repair over checkpoints"
    if kinds:
        digits = digits_for(row.removed.estimate for row in kinds)
        table = numbers_table(
            title,
            ("ablated", "checkpoint"),
            ("write", "removed", "shared", "restored", "restored slope"),
            (
                [
                    ASKED_NAME["attn" if row.kind == "attn" else "mlp"],
                    row.checkpoint,
                    f"{row.writers} of {row.ablated}",
                    number(row.removed.estimate, digits),
                    str(row.with_share),
                    number(row.restored.estimate, 2),
                    format_interval(row.restored_slope, 2),
                ]
                for row in kinds
            ),
        )
        what = (
            "Write: sublayers with something downstream that surely write for the readout. Removed and restored slope: "
            "medians over these, which may be others in each checkpoint. Shared: those that write and have a share "
            "restored in every checkpoint. Restored: the median over these. "
        )
    else:
        digits = digits_for(row.removed.estimate for row in rows)
        table = numbers_table(
            title,
            ("ablated", "checkpoint"),
            ("removed", "restored", "restored slope"),
            (
                [
                    row.ablated,
                    row.checkpoint,
                    number(row.removed.estimate, digits),
                    number(row.restored.estimate, 2),
                    format_interval(row.restored_slope, 2),
                ]
                for column in dict.fromkeys(row.ablated for row in rows)
                for row in rows
                if row.ablated == column
            ),
        )
        what = ""
    notes = (
        f"Target: {target_in_words(found)}. {what}Removed: mean −direct, in {found.attrs.get('units', 'logits')}. "
        "Restored: 1 − lost/removed where something is surely removed. Restored slope: of total − direct on −direct "
        f"over prompts. Readout: {found.attrs['readout']}. Intervals: bootstrap over prompts, "
        f"{percent((bootstrap or Bootstrap()).confidence)} each. Every component, with compensation: --format csv."
    )
    return Group(table, Text(""), Text(notes, style="dim"))


def step_of(label: str) -> int | None:
    """Return the step that a label ends in, or None.

    >>> step_of("step1000"), step_of("checkpoint-20"), step_of("main")
    (1000, 20, None)
    """
    digits = label[len(label.rstrip("0123456789")) :]
    return int(digits) if digits and label[: -len(digits)].rstrip("-_") in ("step", "checkpoint", "") else None


def steps_of(found: xr.Dataset) -> np.ndarray | None:
    """Return the steps of all checkpoints, or None unless all labels name one and they rise.

    Args:
        found: the result of `hydrascope.measures.trajectory`.
    """
    steps = [step_of(str(label)) for label in found["checkpoint"].values]
    known = [step for step in steps if step is not None]
    rises = len(known) == len(steps) and all(a < b for a, b in pairwise(known))
    return np.array(known, float) if rises else None
