"""The bars at the end of a matrix's rows, of what each ablation removes and what is lost."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hydrascope.measures import BOUNDS, EffectsOnly, outcome
from hydrascope.reports.summary import ComponentFindings
from hydrascope.reports.summary.interval import Interval

#: The amounts that have bars, by their names in `measures.outcome`.
BARS = ("removed", "lost")

Outcomes = Float[np.ndarray, "amount bound ablated"]


def mean_outcomes(components: Sequence[ComponentFindings], names: Sequence[str]) -> Outcomes:
    """Return the means of `BARS` over prompts with their bounds, in the readout's unit.

    They are the numbers of the page's sentences. An amount is NaN where there is none.

    Args:
        components: the findings on each ablation, in any order.
        names: the labels of the ablations, in the order of the matrix's rows.
    """
    by_name = {each.ablated: each for each in components}
    return np.array([[_bounds(getattr(by_name[name], amount)) for name in names] for amount in BARS]).swapaxes(1, 2)


def single_outcomes(effects: EffectsOnly) -> Outcomes:
    """Return the amounts of `BARS` on the first prompt; they have no bounds."""
    first = outcome(effects).isel(prompt=0)
    found = np.full((len(BARS), len(BOUNDS), effects.sizes["ablated"]), np.nan)
    found[:, 0] = [first[name].values for name in BARS]
    if not effects["direct"].any():
        found[BARS.index("removed")] = np.nan
    return found


def _bounds(amount: Interval) -> tuple[float, float, float]:
    return amount.estimate, amount.low, amount.high
