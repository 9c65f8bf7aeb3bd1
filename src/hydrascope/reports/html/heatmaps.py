"""The matrices of a page, with one row for each ablated component."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures import BOUNDS, Bootstrap, Effects, EffectsOnly, Sigma, reactions, responses
from hydrascope.measures.labels import in_order
from hydrascope.reports.colour_scale import removal_signs
from hydrascope.reports.summary import Pair


@dataclass(frozen=True)
class Picture:
    """A matrix of means over prompts with bounds, in the readout's unit, a row per ablation.

    Attributes:
        name: the title.
        meaning: the definition of a value, in one line.
        axis: the title of the columns.
        columns: the labels of the columns.
        caption: the name of the readout and of the reading of σ.
        sigma: the reading of σ; None if the values don't depend on it.
        bounds: [bound, ablated, column]; NaN where there is no value.
        signs: [ablated], the sign by which a row's values are multiplied before they are coloured: above 0 makes up.
            0 if the row's ablation removes nothing sure; the row is then faint, and blue is above 0.
        ends: the meaning of orange and of blue.
        joint: the words between a row's and a column's label.
        grey: the reason why a cell has no value.
        bars: whether bars at the end of a row make sense: what its ablation removes and what is lost.
    """

    name: str
    meaning: str
    axis: str
    columns: list[str]
    caption: str
    sigma: Sigma | None
    bounds: Float[np.ndarray, "bound ablated column"]
    signs: Float[np.ndarray, "ablated"]
    ends: tuple[str, str] = ("writes with the change", "writes against it, makes up")
    joint: str = " ablated, "
    grey: str = "not downstream"
    bars: bool = True


def response(effects: Effects, bootstrap: Bootstrap) -> Picture:
    """Return the matrix of mean responses, ΔDE.

    Args:
        effects: the effects on one readout; rows and columns keep their order.
        bootstrap: the resampling that gives the bounds.
    """
    return Picture(
        "Response",
        "Change in a sublayer’s write for the readout once a component is ablated (ΔDE).",
        "Responding sublayer",
        [str(name) for name in effects["component"].values],
        effects.caption,
        effects.read_at,
        responses(effects, bootstrap).values,
        removal_signs(effects, bootstrap),
    )


def mediation_pictures(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Iterator[Picture]:
    """Yield the matrices of `restored_by` and `restored_alone` of a mediation.

    Args:
        results: the results of a mediation.
        effects: the effects of its ablations with nothing frozen, on one readout; they give the order of the rows.
        bootstrap: the resampling that gives the bounds.
    """
    rows, readout = [str(name) for name in effects["ablated"].values], effects.readout
    found = reactions(results, readout, bootstrap).sel(ablated=rows)
    found = found.isel(mediator=in_order(list(map(str, found["mediator"].values))))
    columns = [str(name) for name in found["mediator"].values]
    signs = removal_signs(effects, bootstrap)
    meanings = {
        "restored_by": (
            "Lost again without it",
            "What is lost again if the mediator is frozen and all others are free.",
        ),
        "restored_alone": (
            "Brought by it alone",
            "What the mediator restores if all else downstream is frozen.",
        ),
    }
    for key, (name, meaning) in meanings.items():
        bounds = found[key].transpose("bound", "ablated", "mediator").values
        yield Picture(
            name, meaning, "Mediator", columns, readout, None, bounds, signs, ("adds to the change", "makes up")
        )


def interaction_picture(pairs: Sequence[Pair], components: Sequence[str], readout: str) -> Picture:
    """Return the matrix of interactions; the bounds hold for all pairs at once."""
    index = {component: number for number, component in enumerate(components)}
    bounds = np.full((len(BOUNDS), len(components), len(components)), np.nan)
    for pair in pairs:
        values = (pair.interaction.estimate, pair.interaction.low, pair.interaction.high)
        for row, column in ((pair.first, pair.second), (pair.second, pair.first)):
            bounds[:, index[row], index[column]] = values
    return Picture(
        "Interaction",
        "The effect of ablating both, less those of each alone (Δ both − Δ one − Δ other, Δ the total effect): below 0 "
        "each covers for the other, above 0 they need each other.",
        "Ablated with it",
        list(components),
        readout,
        None,
        bounds,
        # Below 0 each covers for the other.
        np.full(len(components), -1.0),
        ("they need each other", "one covers for the other"),
        joint=" and ",
        grey="no pair",
        bars=False,
    )
