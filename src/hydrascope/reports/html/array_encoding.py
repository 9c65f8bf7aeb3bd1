"""Arrays as a page carries them: bytes, compressed, that it decodes when they are asked for."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

#: What is rounded is off by at most half a step, the range of its column over so many steps: by 1/4000 of the range.
STEPS = 2000
#: Level of deflate: higher ones gain little.
_LEVEL = 6


@dataclass
class Arrays:
    """Named arrays: what a page must know of each to decode it, and their bytes.

    Attributes:
        known: `shape`, whether it is `rounded`, and of what was rounded which `columns` it holds.
        chunks: the compressed bytes.
    """

    known: dict[str, dict] = field(default_factory=dict)
    chunks: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, values: Float[np.ndarray, "..."]) -> None:
        """Keep `values` as float32, little-endian."""
        self.known[name] = {"shape": list(values.shape)}
        self.chunks[name] = zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), _LEVEL)

    def add_rounded(self, name: str, values: Float[np.ndarray, "row column"], columns: Sequence[int]) -> None:
        """Keep some `columns` of `values` on a grid of `STEPS` steps a column.

        The bytes are each column's lowest value and its step, float32, then the steps of all values, row by row: their
        low bytes, then their high bytes, which compress better apart.
        """
        kept = values[:, columns]
        low = kept.min(0, initial=np.inf).astype("<f4")
        step = ((kept.max(0, initial=-np.inf) - low) / STEPS).astype("<f4")
        steps = np.rint((kept - low) / np.where(step > 0, step, 1)).clip(0).astype("<u2")
        planes = steps.reshape(-1, 1).view(np.uint8).T
        self.known[name] = {"shape": list(kept.shape), "rounded": True, "columns": list(columns)}
        self.chunks[name] = zlib.compress(low.tobytes() + step.tobytes() + planes.tobytes(), _LEVEL)
