"""The encoding of arrays in a page: compressed bytes that the page decodes on demand."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Num

#: Steps over the range of a rounded column: a value is off by at most half a step, 1/4000 of the range.
STEPS = 2000
#: The level of compression; higher levels gain little.
_LEVEL = 6


@dataclass
class Arrays:
    """Encoded arrays by name.

    Attributes:
        known: the description by which the page decodes an array: its `shape`; if it is `rounded`, also its `columns`.
        chunks: the compressed bytes of an array.
    """

    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunks: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, values: Num[np.ndarray, "..."]) -> None:
        """Add `values` as little-endian float32."""
        self.known[name] = {"shape": list(values.shape)}
        self.chunks[name] = zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), _LEVEL)

    def add_rounded(self, name: str, values: Float[np.ndarray, "row column"], columns: Sequence[int]) -> None:
        """Add some `columns` of `values`, rounded to a grid of `STEPS` steps per column.

        The bytes hold each column's lowest value and its step (float32), then the steps of all values, row by row.
        Low bytes come first, then high bytes, because they compress better apart.
        """
        kept = values[:, columns]
        low = kept.min(0, initial=np.inf).astype("<f4")
        step = ((kept.max(0, initial=-np.inf) - low) / STEPS).astype("<f4")
        steps = np.rint((kept - low) / np.where(step > 0, step, 1)).clip(0).astype("<u2")
        planes = steps.reshape(-1, 1).view(np.uint8).T
        self.known[name] = {"shape": list(kept.shape), "rounded": True, "columns": list(columns)}
        self.chunks[name] = zlib.compress(low.tobytes() + step.tobytes() + planes.tobytes(), _LEVEL)
