"""The paper's figures, from the results of any run.

Each `figureN` returns a matplotlib figure; `draw_all` writes them all as PNG, PDF and SVG.
"""

from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from hydrascope.errors import HydrascopeError
from hydrascope.figures.figure2 import figure2
from hydrascope.figures.figure7 import figure7
from hydrascope.figures.figure8 import figure8
from hydrascope.figures.heads import figure_heads
from hydrascope.figures.style import save
from hydrascope.figures.traces import examples, figure1, figure3
from hydrascope.measures import Sigma, kinds, per_prompt, require_complete

__all__ = ["Drawn", "draw_all", "examples", "figure1", "figure2", "figure3", "figure7", "figure8", "figure_heads"]


@dataclass(frozen=True)
class Drawn:
    """What `draw_all` has drawn; `str()` says it in a line or more.

    Attributes:
        folder: where the files are.
        paths: of the files.
        left_out: why figures are missing, a line a reason.
    """

    folder: Path
    paths: tuple[Path, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{len(self.paths)} files in {self.folder}", *(f"left out: {why}" for why in self.left_out)))


def draw_all(
    results: xr.Dataset,
    folder: Path,
    prompt: int | None = None,
    ablated: str | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> Drawn:
    """Draw what the run has the data for into `folder`: Figures 1, 2, 3, 7 and 8 of the paper, and the heads.

    Args:
        prompt: the index of the prompt that Figures 1 and 3 show, by default those with the largest direct effect.
        ablated: the part that is ablated in them, by default that with the largest direct effect.
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one; there is no such prompt, part or readout; the folder
            cannot be written; or the run has the data for none of the figures.
    """
    effects = per_prompt(results, readout, sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    paths, left_out = [], []
    if ablated_kinds != {"joint"} or ablated:
        first, second = examples(effects, prompt, ablated)
        paths += save(figure1(results, *first, readout, sigma), folder, "figure1")
        paths += save(figure3(results, *second, readout, sigma), folder, "figure3")
    else:
        left_out.append("figures 1 and 3, which show the ablation of one part: this run ablated several at once")
    if not effects["direct"].any():
        left_out.append("figures 2, 7 and 8, which show direct effects: only positions before the last are ablated")
    elif ablated_kinds & {"attn", "mlp"}:
        paths += save(figure2(effects), folder, "figure2")
        paths += save(figure7(effects), folder, "figure7")
        paths += save(figure8(effects), folder, "figure8")
    else:
        left_out.append("figures 2, 7 and 8, which show ablated layers: this run ablated none")
    if "head" in ablated_kinds:
        paths += save(figure_heads(effects), folder, "heads")
    if not paths:
        raise HydrascopeError("there is nothing to draw: " + "; ".join(left_out))
    return Drawn(folder, tuple(paths), tuple(left_out))
