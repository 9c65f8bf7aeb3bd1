"""The matrices that a page shows, a row an ablated part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures import BOUNDS, Bootstrap, Effects, EffectsOnly, Sigma, reactions, responses
from hydrascope.measures.labels import in_order
from hydrascope.reports.summary import Pair


@dataclass(frozen=True)
class Picture:
    """A matrix of means over prompts with bounds, a row an ablated part; in the readout's unit.

    Attributes:
        name: what it shows, in words.
        meaning: how they are defined, in a line.
        axis: what its columns are.
        columns: their labels.
        caption: what was read, in words.
        sigma: under which reading of σ; none where it doesn't depend on it.
        bounds: [bound, ablated, column]; NaN where there is nothing to measure.
        joint: the words between a row's and a column's label.
        grey: why nothing can be measured where nothing is.
    """

    name: str
    meaning: str
    axis: str
    columns: list[str]
    caption: str
    sigma: Sigma | None
    bounds: Float[np.ndarray, "bound ablated column"]
    joint: str = " ablated, "
    grey: str = "not downstream"


def response(effects: Effects, bootstrap: Bootstrap) -> Picture:
    """Who responds to what.

    Args:
        effects: on one readout; rows and columns keep their order.
    """
    return Picture(
        "Response",
        "By how much what a layer writes for the readout changes once a part is ablated (ΔDE).",
        "Responding layer",
        [str(name) for name in effects["component"].values],
        effects.caption,
        effects.read_at,
        responses(effects, bootstrap).values,
    )


def mediation_pictures(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Iterator[Picture]:
    """What each response is worth.

    Args:
        results: of a mediation.
        effects: of its ablations with nothing frozen on one readout, in whose order the rows are.
    """
    rows, readout = [str(name) for name in effects["ablated"].values], effects.readout
    found = reactions(results, readout, bootstrap).sel(ablated=rows)
    found = found.isel(mediator=in_order(list(map(str, found["mediator"].values))))
    columns = [str(name) for name in found["mediator"].values]
    meanings = {
        "restored_by": ("Lost again without it", "What is lost again if the mediator is frozen, all others free."),
        "restored_alone": ("Brought by it alone", "What the mediator brings if all else downstream is frozen."),
    }
    for key, (name, meaning) in meanings.items():
        bounds = found[key].transpose("bound", "ablated", "mediator").values
        yield Picture(name, meaning, "Mediator", columns, readout, None, bounds)


def interaction_picture(pairs: Sequence[Pair], parts: Sequence[str], readout: str) -> Picture:
    """What every two of `parts` do to each other, with the bounds of the summary, which hold for all pairs at once."""
    place = {part: number for number, part in enumerate(parts)}
    bounds = np.full((len(BOUNDS), len(parts), len(parts)), np.nan)
    for pair in pairs:
        found = (pair.interaction.estimate, pair.interaction.low, pair.interaction.high)
        for row, column in ((pair.first, pair.second), (pair.second, pair.first)):
            bounds[:, place[row], place[column]] = found
    return Picture(
        "Interaction",
        "What ablating both does, less what each does alone (Δ both − Δ one − Δ other, Δ the total effect): below 0 "
        "each covers for the other, above 0 they need each other.",
        "Ablated with it",
        list(parts),
        readout,
        None,
        bounds,
        joint=" and ",
        grey="no pair",
    )
