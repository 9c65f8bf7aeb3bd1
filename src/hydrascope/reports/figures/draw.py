"""Every figure that a result has the data for, as PNG, PDF and SVG; a function for each kind of result."""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from hydrascope.measures import Sigma, kinds, per_prompt, require_complete, single_ablations
from hydrascope.reports.figures.figure2 import figure2
from hydrascope.reports.figures.figure7 import figure7
from hydrascope.reports.figures.figure8 import figure8
from hydrascope.reports.figures.figures_1_3 import examples, figure1, figure3, why_chosen
from hydrascope.reports.figures.heads import figure_heads
from hydrascope.reports.figures.mediation import figure_interactions, figure_mediation
from hydrascope.reports.figures.responses import figure_responses
from hydrascope.reports.figures.style import save


@dataclass(frozen=True)
class Choice:
    """What is drawn.

    Attributes:
        prompt, ablated: the prompt, by its index, and the ablation that Figures 1 and 3 show; by default `examples`.
        readout, sigma: as in `hydrascope.measures.per_prompt`.
    """

    prompt: int | None = None
    ablated: str | None = None
    readout: str | None = None
    sigma: Sigma | None = None


@dataclass(frozen=True)
class Drawn:
    """What was drawn; `str()` says it in a line or more.

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


def draw_sweep(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw who responds, Figures 1, 2, 3, 7 and 8 of the paper, and the heads; of ablations one by one."""
    effects = per_prompt(results, choice.readout, choice.sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    traced = ablated_kinds != {"joint"} or choice.ablated
    # First, so that nothing is drawn where what is asked for isn't there.
    shown = examples(effects, choice.prompt, choice.ablated) if traced else ()
    paths, left_out = save(figure_responses(effects), folder, "responses"), []
    if shown:
        named = choice.prompt is not None or choice.ablated
        first, second = ("" if named else why_chosen(effects, part) for _, part in shown)
        paths += save(figure1(effects, results, *shown[0], first), folder, "figure1")
        paths += save(figure3(effects, results, *shown[1], second), folder, "figure3")
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


def draw_mediation(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw what `draw_sweep` draws of a mediation's ablations, and who repairs."""
    drawn = draw_sweep(single_ablations(results), folder, choice)
    mediators = save(figure_mediation(results, choice.readout), folder, "mediation")
    return replace(drawn, paths=(*drawn.paths, *mediators))


def draw_interactions(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw who covers for whom, and nothing else."""
    return Drawn(folder, tuple(save(figure_interactions(results, choice.readout), folder, "interactions")), ())
