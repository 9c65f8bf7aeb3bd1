"""The rows of an analysis of distances, with the control, as numbers."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import Bootstrap, restoration_by_kick
from hydrascope.measures.effects_type import Effects
from hydrascope.measures.restoration import restoration
from hydrascope.reports.summary.interval import Interval


@dataclass(frozen=True)
class DistanceRow:
    """The distance that one ablation pushes the residual stream, and what is restored.

    Distances are medians over prompts.

    Attributes:
        readout: the readout's label.
        ablated: the label of the ablation.
        relative: the distance relative to the prompt's own clean stream, after the ablated block.
        relative_later: the largest median of later blocks; NaN after the last block.
        rank: the share of clean runs that are as unusual, after the ablated block; 1 is typical.
        kick: half the mean squared change in units of the spread of clean runs, after the ablated block.
        restored_slope: the slope of total − direct on −direct over prompts.
        rise: that of the third of prompts with the largest kick minus that of the smallest.
        control_slope: the restored slope of random directions of the same size.
    """

    readout: str
    ablated: str
    relative: float
    relative_later: float
    rank: float
    kick: float
    restored_slope: Interval
    rise: Interval
    control_slope: Interval


def distance_rows(found: xr.Dataset, effects: Effects, bootstrap: Bootstrap | None = None) -> tuple[DistanceRow, ...]:
    """Return a row for each ablation, the largest kick first.

    Args:
        found: the result of `hydrascope.analyses.distance`.
        effects: the effects of a sweep with the same ablation.
        bootstrap: the resampling that gives the bounds.

    Raises:
        HydrascopeError: the effects are of other prompts or ablations.
    """
    bootstrap = bootstrap or Bootstrap()
    by_kick = restoration_by_kick(effects, found, bootstrap)
    rises, null = by_kick["rise"], by_kick["control_slope"]
    slopes = restoration(effects, bootstrap)["restored_slope"]
    medians = found[["relative", "rank", "kick"]].median("prompt")
    rows = []
    for label in map(str, found["ablated"].values):
        first = int(found["first_block"].sel(ablated=label))
        at, later = (
            medians.sel(ablated=label, block=first),
            medians["relative"].sel(ablated=label, block=slice(first + 1, None)),
        )
        rows.append(
            DistanceRow(
                effects.readout,
                label,
                float(at["relative"]),
                float(later.max()) if later.size else float("nan"),
                float(at["rank"]),
                float(at["kick"]),
                Interval.of(slopes.sel(ablated=label)),
                Interval.of(rises.sel(ablated=label)),
                Interval.of(null.sel(ablated=label)),
            )
        )
    return tuple(sorted(rows, key=lambda row: -np.nan_to_num(row.kick)))
