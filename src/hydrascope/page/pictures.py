"""The matrices that a page shows, a row an ablated part."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.figures.matrices import in_order
from hydrascope.measures import Bootstrap, reactions, responses


@dataclass(frozen=True)
class Picture:
    """A matrix of means over prompts with bounds, a row an ablated part; in the readout's unit.

    Attributes:
        name: what it shows, in words.
        meaning: how they are defined, in a line.
        axis: what its columns are.
        columns: their labels.
        bounds: [bound, ablated, column]; NaN where there is nothing to measure.
        joint: the words between a row's and a column's label.
        grey: why nothing can be measured where nothing is.
    """

    name: str
    meaning: str
    axis: str
    columns: list[str]
    bounds: Float[np.ndarray, "bound ablated column"]
    joint: str = " ablated, "
    grey: str = "not downstream"


def pictures(results: xr.Dataset, effects: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Picture]:
    """Who responds to what, and, of a mediation, what each response is worth.

    Args:
        results: of a run.
        effects: of its ablations with nothing frozen on one readout, as `hydrascope.measures.per_prompt` gives them;
            in whose order the rows and columns are.
    """
    columns = [str(name) for name in effects["component"].values]
    yield Picture(
        "Response",
        "By how much what a layer writes for the readout changes once a part is ablated (ΔDE).",
        "Responding layer",
        columns,
        responses(effects, bootstrap).values,
    )
    yield from mediated(results, effects, bootstrap)


def mediated(results: xr.Dataset, effects: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Picture]:
    """What each response is worth, of a mediation; of other results nothing."""
    if results.attrs.get("experiment") != "mediation":
        return
    rows = [str(name) for name in effects["ablated"].values]
    found = reactions(results, effects.attrs["readout"], bootstrap).sel(ablated=rows)
    found = found.isel(mediator=in_order(list(map(str, found["mediator"].values))))
    columns = [str(name) for name in found["mediator"].values]
    meanings = {
        "restored_by": ("Lost again without it", "What is lost again if the mediator is frozen, all others free."),
        "restored_alone": ("Brought by it alone", "What the mediator brings if all else downstream is frozen."),
    }
    for key, (name, meaning) in meanings.items():
        yield Picture(name, meaning, "Mediator", columns, found[key].transpose("bound", "ablated", "mediator").values)
