"""The style of all figures, made for print and any colour vision."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hydrascope.utils.errors import HydrascopeError

# Okabe & Ito (2008), distinguishable with any kind of colour vision.
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
GREY = "#8C8C8C"
BLACK = "#000000"
#: Small text that says where a figure comes from.
DIM = "#6B6B6B"

#: Attention and MLP keep their colours through all figures.
ATTENTION = BLUE
MLP = VERMILION

#: Depth in the network: perceptually uniform and colour-blind safe.
DEPTH_CMAP = "viridis"

#: Widths in inches of one column and of the full text of a two-column page.
COLUMN = 3.4
PAGE = 7.0

FORMATS = ("png", "pdf", "svg")

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    # Text stays text in PDF (TrueType) and SVG, so that a figure can be searched and edited.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    # Prompts are shown as they are: a "$" starts no formula.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's style; matplotlib's settings return when the context ends."""
    with mpl.rc_context(_RC):
        yield


def save(
    figure: Figure,
    folder: Path,
    name: str,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    written: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `figure` to `folder` as `name`.png, .pdf and .svg.

        >>> paths = save(Figure(), Path("figures"), "empty")

    Args:
        figure: the figure.
        folder: the folder; it is made if it is missing.
        name: the name of the files, without an ending.
        metadata: metadata of the files by ending: `{"png": {"Title": "…"}}`.
        written: the text of files that are not drawn from `figure`, by ending.

    Returns:
        The files written.

    Raises:
        HydrascopeError: the folder cannot be written.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in FORMATS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with style():
            for path in paths:
                suffix = path.suffix[1:]
                if written and suffix in written:
                    path.write_text(written[suffix], encoding="utf-8", newline="\n")
                    continue
                # Without a creation date the same result gives the same file.
                stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})
                own = (metadata or {}).get(suffix, {})
                figure.savefig(path, metadata={**stamp, **own} or None)
    except OSError as error:
        raise HydrascopeError(f"cannot write figures to {folder}: {error.strerror or error}") from error
    return paths
