"""What a page decodes is what was kept, within the rounding that it states."""

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opened import decoded

from hydrascope.reports.html.array_encoding import STEPS, Arrays


@given(st.integers(1, 9), st.integers(1, 7), st.floats(1e-6, 1e4), st.floats(-100, 100), st.integers(0, 9))
def test_rounding_is_as_small_as_the_page_says(rows, columns, spread, centre, seed):
    rng = np.random.default_rng(seed)
    values = (centre + spread * rng.standard_t(2, size=(rows, columns))).astype(np.float32)
    chosen = sorted(rng.choice(columns, rng.integers(columns + 1), replace=False).tolist())
    arrays = Arrays()
    arrays.add_rounded("a", values, chosen)
    found = decoded(arrays.known, arrays.chunks, "a")
    kept = values[:, chosen].astype(float)
    most = np.ptp(kept, axis=0) / (2 * STEPS) if chosen else 0
    np.testing.assert_array_less(abs(found - kept) - most, 1e-6 * (abs(kept) + spread))
    assert arrays.known["a"] == {"shape": list(kept.shape), "rounded": True, "columns": chosen}


def test_others_are_kept_in_single_precision():
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    values[0, 0, 0] = np.nan
    arrays = Arrays()
    arrays.add("a", values)
    np.testing.assert_array_equal(decoded(arrays.known, arrays.chunks, "a"), values.astype(np.float32))
    assert len(zlib.decompress(arrays.chunks["a"])) == 4 * values.size
