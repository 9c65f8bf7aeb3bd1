"""The axis of the bars beside a matrix, of what each ablation removes and what is lost.

It is linear, so that a bar half as long is half as much. One of a few large ablations would flatten all others: the
axis leaves them out, and their bars end in an arrow with a number.
"""

import numpy as np
from jaxtyping import Float

#: The share of rows that may have a bar beyond the axis.
_BEYOND = 0.05
#: An axis is clipped only if that makes it shorter by this factor.
_WORTH = 1.5


def bar_limits(amounts: Float[np.ndarray, "amount ablated"]) -> tuple[float, float]:
    """Return the lowest and the highest value of the axis; 0 lies within them.

    At least 95% of the rows have all their bars within. All have if that makes the axis less than half as long again.

    >>> bar_limits(np.array([[1.0, -0.5], [0.4, 0.2]]))
    (-0.5, 1.0)

    Args:
        amounts: a row for each kind of bar; NaN where there is no bar.
    """
    values = np.nan_to_num(amounts.astype(np.float64))
    low, high = max(0.0, -values.min(initial=0.0)), max(0.0, values.max(initial=0.0))
    rows = np.sort(abs(values).max(0, initial=0.0))
    most = rows[len(rows) - 1 - int(_BEYOND * len(rows))] if len(rows) else 0.0
    within = min(low, most), min(high, most)
    if low + high > _WORTH * sum(within) > 0:
        low, high = within
    return (float(-low), float(high)) if low + high else (0.0, 1.0)
