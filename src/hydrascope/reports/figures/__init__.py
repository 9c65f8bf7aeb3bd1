"""The paper's figures, from the results of any run.

Each `figureN` returns a matplotlib figure; `draw_all` writes them all as PNG, PDF and SVG.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from hydrascope.measures import Sigma, kinds, per_prompt, require_complete, without_frozen
from hydrascope.reports.figures.faithfulness import figure_circuit
from hydrascope.reports.figures.figure2 import figure2
from hydrascope.reports.figures.figure7 import figure7
from hydrascope.reports.figures.figure8 import figure8
from hydrascope.reports.figures.figures_1_3 import examples, figure1, figure3, why_chosen
from hydrascope.reports.figures.heads import figure_heads
from hydrascope.reports.figures.mediation import figure_interactions, figure_mediation, figure_paths
from hydrascope.reports.figures.responses import figure_responses
from hydrascope.reports.figures.style import save

__all__ = [
    "Drawn",
    "draw_all",
    "examples",
    "figure1",
    "figure2",
    "figure3",
    "figure7",
    "figure8",
    "figure_circuit",
    "figure_heads",
    "figure_interactions",
    "figure_mediation",
    "figure_paths",
    "figure_responses",
]


@dataclass(frozen=True)
class Drawn:
    """What `draw_all` has drawn; `str()` says it in a line or more.

    Attributes:
        folder: where the files are.
        paths: of the files.
        skipped: why figures are missing, a line a reason.
    """

    folder: Path
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{len(self.paths)} files in {self.folder}", *(f"left out: {why}" for why in self.skipped)))


def draw_all(
    results: xr.Dataset,
    folder: Path,
    prompt: int | None = None,
    ablated: str | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> Drawn:
    """Draw what the run has the data for into `folder`: who responds, Figures 1, 2, 3, 7 and 8 of the paper, the heads.

    Of mediation who repairs, too; of interactions who covers for whom, and nothing else.

    Args:
        prompt, ablated: the prompt, by its index, and the ablation that Figures 1 and 3 show; by default `examples`.
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one; there is no such prompt, part or readout; the folder
            cannot be written.
    """
    experiment = results.attrs.get("experiment")
    if experiment == "interactions":
        return Drawn(folder, tuple(save(figure_interactions(results, readout), folder, "interactions")), ())
    if experiment == "mediation":
        drawn = draw_all(without_frozen(results), folder, prompt, ablated, readout, sigma)
        mediators = save(figure_mediation(results, readout), folder, "mediation")
        return replace(drawn, paths=(*drawn.paths, *mediators))
    effects = per_prompt(results, readout, sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    traced = ablated_kinds != {"joint"} or ablated
    # First, so that nothing is drawn where what is asked for isn't there.
    shown = examples(effects, prompt, ablated) if traced else ()
    paths, left_out = save(figure_responses(effects), folder, "responses"), []
    if shown:
        first, second = ("" if prompt is not None or ablated else why_chosen(effects, part) for _, part in shown)
        paths += save(figure1(results, *shown[0], readout, sigma, first), folder, "figure1")
        paths += save(figure3(results, *shown[1], readout, sigma, second), folder, "figure3")
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
    return Drawn(folder, tuple(paths), tuple(left_out))
