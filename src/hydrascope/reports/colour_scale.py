"""The colour scale that matrices share."""

import numpy as np
from jaxtyping import Float

#: The colours end at this quantile of |value|, so that one large value doesn't turn all others white.
_QUANTILE = 0.99


def scale_of(*matrices: Float[np.ndarray, "row column"]) -> float:
    """Return the |value| at which the colours of some matrices end; 1 if all values are 0."""
    sizes = np.concatenate([abs(matrix[np.isfinite(matrix)]) for matrix in matrices])
    most = float(np.quantile(sizes, _QUANTILE)) if sizes.size else 0.0
    return most or float(sizes.max(initial=0)) or 1.0
