"""The paper's figures, from the results of any run.

Each `figureN` returns a matplotlib figure; `draw_all` writes them all as PNG, PDF and SVG.
"""

from pathlib import Path

import xarray as xr

from hydrascope.figures.figure2 import figure2
from hydrascope.figures.figure7 import figure7
from hydrascope.figures.figure8 import figure8
from hydrascope.figures.style import save
from hydrascope.figures.traces import examples, figure1, figure3
from hydrascope.measures import average_patches, require_complete

__all__ = ["draw_all", "examples", "figure1", "figure2", "figure3", "figure7", "figure8"]


def draw_all(results: xr.Dataset, folder: Path, prompt: int | None = None, ablated: str | None = None) -> list[Path]:
    """Draw Figures 1, 2, 3, 7 and 8 of the paper into `folder`; the paths written.

    Args:
        prompt: the index of the prompt that Figures 1 and 3 show, by default those with the largest direct effect.
        ablated: the component that is ablated in them, by default that with the largest direct effect.

    Raises:
        HydrascopeError: this is no result, or an unfinished one; there is no such prompt or component; the folder
            cannot be written.
    """
    effects = average_patches(results)
    require_complete(effects)
    paths = save(figure1(results, prompt, ablated), folder, "figure1")
    paths += save(figure2(effects), folder, "figure2")
    paths += save(figure3(results, prompt, ablated), folder, "figure3")
    paths += save(figure7(effects), folder, "figure7")
    paths += save(figure8(effects), folder, "figure8")
    return paths
