"""The rows of mediation and of interactions, as numbers with confidence intervals."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope import measures
from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap, interactions, mean_interval, select_readout, simultaneous
from hydrascope.reports.summary.interval import Interval


@dataclass(frozen=True)
class Reaction:
    """One mediator's reaction to one ablation, means over prompts in the readout's unit.

    `restored_by` and `restored_alone` have bounds that hold for all reactions of the run at once.

    Attributes:
        ablated: the label of the ablation.
        mediator: the label of the reacting component.
        restored_by: the loss when the mediator is frozen and all others are free.
        restored_alone: the gain when the mediator is free and all others downstream are frozen.
        response: the change of what the mediator writes.
    """

    ablated: str
    mediator: str
    restored_by: Interval
    restored_alone: Interval
    response: Interval


@dataclass(frozen=True)
class Pair:
    """The interaction of two ablations, means over prompts in the readout's unit.

    Attributes:
        first: the label of the component that comes first in the network.
        second: the label of the component that comes second.
        interaction: the effect of ablating both minus the effects of ablating each, with bounds that hold for all pairs
            at once. Below 0 each covers for the other.
        lost: the loss by ablating the second.
        lost_after: the same with the first ablated; it is larger if the second is its backup.
    """

    first: str
    second: str
    interaction: Interval
    lost: Interval
    lost_after: Interval


def reactions(results: xr.Dataset, readout: str, bootstrap: Bootstrap) -> tuple[Reaction, ...]:
    """Return the reactions of downstream mediators to each ablation, the most restoring first."""
    table = measures.reactions(results, readout, bootstrap).transpose("ablated", "mediator", "bound")
    columns = [table[name].values for name in ("restored_by", "restored_alone", "response")]
    rows = [
        Reaction(str(ablated), str(mediator), *(Interval(*map(float, column[i, j])) for column in columns))
        for i, ablated in enumerate(table["ablated"].values)
        for j, mediator in enumerate(table["mediator"].values)
        if not np.isnan(columns[0][i, j, 0])
    ]
    return tuple(sorted(rows, key=lambda row: -row.restored_by.estimate))


def pairs(results: xr.Dataset, readout: str, bootstrap: Bootstrap) -> tuple[Pair, ...]:
    """Return the interaction of every two components, the most redundant first.

    In a pair the later component of the network comes second: it may be the backup of the first.
    """
    found = select_readout(interactions(results), readout)
    components = [Component.parse(str(label)) for label in found["first"].values]
    order = np.array(
        sorted(
            range(len(components)), key=lambda n: (components[n].block, components[n].sublayer.kind, components[n].unit)
        )
    )
    i, j = np.triu_indices(len(order), 1)
    one, other = order[i], order[j]
    values = found["interaction"].values[:, one, other]
    measured = ~np.isnan(values).any(0)
    one, other, values = one[measured], other[measured], values[:, measured]
    alone = -found["total"].values
    samples = xr.Dataset({"interaction": (("prompt", "pair"), values)})
    interaction = simultaneous(lambda means: means, samples, bootstrap, "pair")["interaction"]
    # Of each component once: it is the second one of many pairs.
    lost = mean_interval(xr.DataArray(alone, dims=("prompt", "pair")), bootstrap).isel(pair=other)
    lost_after = mean_interval(xr.DataArray(alone[:, other] - values, dims=("prompt", "pair")), bootstrap)
    columns = [each.transpose("pair", "bound").values for each in (interaction, lost, lost_after)]
    names = found["first"].values
    rows = [
        Pair(str(names[a]), str(names[b]), *(Interval(*map(float, column[number])) for column in columns))
        for number, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: row.interaction.estimate))
