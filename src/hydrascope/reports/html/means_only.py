"""A page without its single prompts, small enough to stand in a notebook's file."""

from collections.abc import Mapping, Sequence
from typing import Any

#: The ends of the names of arrays that are means over prompts.
_MEANS = (".mean",)


def left_out(missing: Sequence[str]) -> str:
    """Return the sentence that names the parts left out of a page; empty if there are none.

    >>> left_out(["single prompts", "readouts but the first"]).partition(",")[0]
    'Single prompts and readouts but the first are left out'
    """
    if not missing:
        return ""
    named = " and ".join(missing)
    return (
        f"{named[0].upper()}{named[1:]} are left out, so that the notebook stays small: hs.view(results, full=True) "
        "shows them, and hs.report(results, 'report.html') writes them to a file."
    )


def without_prompts(
    page: Mapping[str, Any], chunks: Mapping[str, bytes], said: str
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the content and the arrays of a page that shows means over prompts alone.

        >>> page, chunks = hs.reports.page_data(results, hs.measures.Bootstrap(resamples=50))
        >>> small, kept = without_prompts(page, chunks, "Single prompts are left out.")
        >>> len(small["prompts"]), sum(map(len, kept.values())) < sum(map(len, chunks.values()))
        (0, True)

    Args:
        page: the content of a page, as JSON values.
        chunks: its compressed arrays, by name.
        said: the sentence on the page that says where single prompts are.
    """
    pictures = {
        picture["array"] for readout in page["readouts"] for read in readout["readings"] for picture in read["pictures"]
    }
    kept = {name: chunk for name, chunk in chunks.items() if name in pictures or name.endswith(_MEANS)}
    readouts = [{**readout, "clean": []} for readout in page["readouts"]]
    arrays = {name: page["arrays"][name] for name in kept}
    left = {"prompts": [], "tokens": [], "patched": 0, "readouts": readouts, "arrays": arrays}
    return {**page, **left, "count": len(page["prompts"]), "left_out": said}, kept
