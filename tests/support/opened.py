"""A page's arrays, decoded here as its script decodes them, and results that it is made from."""

import csv
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import synthetic
import xarray as xr

from hydrascope.measures import Bootstrap

#: Enough to have bounds.
FEW = Bootstrap(resamples=200)

HOSTILE = (
    "<script>window.hacked = true</script>",
    "</script><img src=x onerror='window.hacked=true'><!--",
    "{{script}} {{page}} \\u003cb\\u003e &lt;b&gt; \" ' ` ${1}",
    "\u202eright to left\u2028\u2029\u0000\x1b[2J \ud800 שלום 👩\u200d🚀",
    "x" * 10_000,
    "",
)


def decoded(known: Mapping[str, dict], chunks: Mapping[str, bytes], name: str) -> np.ndarray:
    """The array of that name, in its shape."""
    content, shape = zlib.decompress(chunks[name]), known[name]["shape"]
    if not known[name].get("rounded"):
        return np.frombuffer(content, "<f4").reshape(shape)
    rows, columns = shape
    low, step = np.frombuffer(content, "<f4", 2 * columns).astype(float).reshape(2, columns)
    low_bytes, high_bytes = np.frombuffer(content, np.uint8, offset=8 * columns).astype(int).reshape(2, rows, columns)
    return low + step * (low_bytes + 256 * high_bytes)


def with_prompts(results: xr.Dataset, texts: Sequence[str]) -> xr.Dataset:
    """The same results of prompts, and targets, that read so."""
    texts = [texts[i % len(texts)] for i in range(results.sizes["prompt"])]
    # Numpy's own strings can't hold halves of surrogate pairs.
    named = ("prompt", np.array(texts, object))
    without = results.drop_vars(["token_id", "token_text", "token_ablated"])
    return without.assign_coords(text=named, target_text=named, **synthetic.tokens(texts, object))


def example(**options) -> xr.Dataset:
    """A small result with two readouts and a head."""
    return synthetic.results(
        4,
        40,
        2,
        heads=2,
        ablated=[*synthetic.labels(4), "head.2.1"],
        **{"readouts": {"logit": -1, "placebo.0": -1}, **options},
    )


def saved(page, button: str) -> bytes:
    """What a button of a page saves."""
    with page.expect_download() as found:
        page.get_by_role("button", name=button).click()
    return found.value.path().read_bytes()


def rows_of(content: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(content.decode().splitlines()))


def names(page, of):
    """The names of what a page shows: `ablated`, `components`, `readouts`."""
    return [each["name"] for each in page[0][of]]


def lines(page, scatter=0, readout=0, reading=0):
    """The lines of a scatter of a page."""
    return page[0]["readouts"][readout]["readings"][reading]["scatters"][scatter]["lines"]
