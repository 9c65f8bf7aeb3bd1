"""The matrix of interactions that a page shows, a row and a column a part."""

from collections.abc import Sequence

import numpy as np

from hydrascope.measures import BOUNDS
from hydrascope.page.pictures import Picture
from hydrascope.summary import Pair


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
