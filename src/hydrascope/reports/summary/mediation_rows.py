"""Who repairs, and who covers for whom, as numbers with confidence intervals: of mediation and of interactions."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope import measures
from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap, interactions, mean_interval, select_readout, simultaneous
from hydrascope.reports.summary.interval import Interval


@dataclass(frozen=True)
class Reaction:
    """What one mediator's reaction to one ablation is worth, means over prompts in the readout's unit.

    `restored_by` and `restored_alone` have bounds that hold for all reactions of the run at once.

    Attributes:
        ablated: what is ablated.
        mediator: who reacts.
        restored_by: what is lost again if it is frozen, all others free.
        restored_alone: what it brings if all others are frozen.
        response: what it writes more.
    """

    ablated: str
    mediator: str
    restored_by: Interval
    restored_alone: Interval
    response: Interval


@dataclass(frozen=True)
class Pair:
    """What two ablations do to each other, means over prompts in the readout's unit.

    Attributes:
        first, second: what is ablated, in the network's order.
        interaction: what both do together less what each does alone, with bounds that hold for all pairs at once:
            below 0 where each covers for the other.
        lost: what ablating the second loses.
        lost_after: the same once the first is ablated: more, where the second is its backup.
    """

    first: str
    second: str
    interaction: Interval
    lost: Interval
    lost_after: Interval


def reactions(results: xr.Dataset, readout: str, bootstrap: Bootstrap) -> tuple[Reaction, ...]:
    """Of each ablation and each mediator that is downstream of it; what restores most comes first."""
    found = measures.reactions(results, readout, bootstrap).transpose("ablated", "mediator", "bound")
    columns = [found[name].values for name in ("restored_by", "restored_alone", "response")]
    rows = [
        Reaction(str(ablated), str(mediator), *(Interval(*map(float, column[i, j])) for column in columns))
        for i, ablated in enumerate(found["ablated"].values)
        for j, mediator in enumerate(found["mediator"].values)
        if not np.isnan(columns[0][i, j, 0])
    ]
    return tuple(sorted(rows, key=lambda row: -row.restored_by.estimate))


def pairs(results: xr.Dataset, readout: str, bootstrap: Bootstrap) -> tuple[Pair, ...]:
    """Of every two parts; the most redundant first, the most synergistic last.

    Of a pair the one that is later in the network comes second: it is the one that may be the other's backup.
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
    there = ~np.isnan(values).any(0)
    one, other, values = one[there], other[there], values[:, there]
    lost = -found["total"].values[:, other]
    samples = xr.Dataset({"interaction": (("prompt", "pair"), values)})
    interaction = simultaneous(lambda means: means, samples, bootstrap, "pair")["interaction"]
    more = [mean_interval(xr.DataArray(each, dims=("prompt", "pair")), bootstrap) for each in (lost, lost - values)]
    columns = [each.transpose("pair", "bound").values for each in (interaction, *more)]
    names = found["first"].values
    rows = [
        Pair(str(names[a]), str(names[b]), *(Interval(*map(float, column[number])) for column in columns))
        for number, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: row.interaction.estimate))
