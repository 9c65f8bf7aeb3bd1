"""The scale of colours that matrices share."""

import numpy as np
from jaxtyping import Float

#: The colours end at this quantile of |value|, so that one large value doesn't turn all others white.
_QUANTILE = 0.99


def scale_of(*matrices: Float[np.ndarray, "row column"]) -> float:
    """Where the colours of some matrices end; 1 where all are 0."""
    known = np.concatenate([abs(matrix[np.isfinite(matrix)]) for matrix in matrices])
    most = float(np.quantile(known, _QUANTILE)) if known.size else 0.0
    return most or float(known.max(initial=0)) or 1.0
