"""Write every figure of a result as PNG, PDF and SVG, with a function per kind of result."""

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
    """The data that figures show.

    Attributes:
        prompt: the index of the prompt in Figures 1 and 3; by default that of `examples`.
        ablated: the ablation in Figures 1 and 3; by default that of `examples`.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.
    """

    prompt: int | None = None
    ablated: str | None = None
    readout: str | None = None
    sigma: Sigma | None = None


@dataclass(frozen=True)
class Drawn:
    """The figures written; `str()` describes them in lines.

    Attributes:
        folder: the folder of the files.
        paths: the files.
        skipped: the reasons why figures are missing, one line each.
    """

    folder: Path
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{len(self.paths)} files in {self.folder}", *(f"left out: {why}" for why in self.skipped)))


def draw_sweep(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figures of single ablations: responses, Figures 1, 2, 3, 7 and 8, and heads."""
    effects = per_prompt(results, choice.readout, choice.sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    traced = ablated_kinds != {"joint"} or choice.ablated
    # Examples come first, so that nothing is written if the prompt or ablation doesn't exist.
    shown = examples(effects, choice.prompt, choice.ablated) if traced else ()
    paths, left_out = save(figure_responses(effects), folder, "responses"), []
    if shown:
        named = choice.prompt is not None or choice.ablated
        first, second = ("" if named else why_chosen(effects, label) for _, label in shown)
        paths += save(figure1(effects, results, *shown[0], first), folder, "figure1")
        paths += save(figure3(effects, results, *shown[1], second), folder, "figure3")
    else:
        left_out.append("figures 1 and 3, which show the ablation of one component: this run ablated several at once")
    if not effects["direct"].any():
        left_out.append("figures 2, 7 and 8, which show direct effects: only positions before the last are ablated")
    elif ablated_kinds & {"attn", "mlp"}:
        paths += save(figure2(effects), folder, "figure2")
        paths += save(figure7(effects), folder, "figure7")
        paths += save(figure8(effects), folder, "figure8")
    else:
        left_out.append("figures 2, 7 and 8, which show ablated sublayers: this run ablated none")
    if "head" in ablated_kinds:
        paths += save(figure_heads(effects), folder, "heads")
    return Drawn(folder, tuple(paths), tuple(left_out))


def draw_mediation(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figures of a mediation: those of `draw_sweep`, and the mediators."""
    drawn = draw_sweep(single_ablations(results), folder, choice)
    mediators = save(figure_mediation(results, choice.readout), folder, "mediation")
    return replace(drawn, paths=(*drawn.paths, *mediators))


def draw_interactions(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figure of interactions."""
    return Drawn(folder, tuple(save(figure_interactions(results, choice.readout), folder, "interactions")), ())
