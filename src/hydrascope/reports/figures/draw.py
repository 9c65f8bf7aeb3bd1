"""Write every figure of a result as PNG, PDF and SVG, with a function per kind of result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.measures import Bootstrap, Effects, Sigma, kinds, per_prompt, require_complete, single_ablations
from hydrascope.reports.figures.figure2 import figure2
from hydrascope.reports.figures.figure7 import figure7
from hydrascope.reports.figures.figure8 import figure8
from hydrascope.reports.figures.figures_1_3 import examples, figure1, figure3, why_chosen
from hydrascope.reports.figures.flow import save_flow
from hydrascope.reports.figures.heads import figure_heads
from hydrascope.reports.figures.mediation import figure_interactions, figure_mediation
from hydrascope.reports.figures.origin import as_metadata, origin
from hydrascope.reports.figures.panels import can_regress
from hydrascope.reports.figures.responses import figure_responses
from hydrascope.reports.figures.style import save
from hydrascope.reports.flow.measured import chosen, flow_of
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.summary.verdict import verdicts
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Choice:
    """The data that figures show.

    Attributes:
        prompt: the index of the prompt in Figures 1 and 3; by default that of `examples`.
        ablated: the ablation in Figures 1 and 3, by default that of `examples`, and in the repair flow, by default the
            summary's choice.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.
        mediation: a mediation of the same prompts, for the repair flow.
    """

    prompt: int | None = None
    ablated: str | None = None
    readout: str | None = None
    sigma: Sigma | None = None
    mediation: xr.Dataset | None = None


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
    """Draw the repair flow, responses, Figures 1, 2, 3, 7 and 8, and heads of single ablations."""
    effects = per_prompt(results, choice.readout, choice.sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    traced = ablated_kinds != {"joint"} or choice.ablated
    # Examples come first, so that nothing is written if the prompt or ablation doesn't exist.
    shown = examples(effects, choice.prompt, choice.ablated) if traced else ()
    flow = _flow(results, effects, choice)

    def of(name: str) -> dict[str, dict[str, Any]]:
        return as_metadata(name, origin(effects.data, effects.caption))

    paths, left_out = save(figure_responses(effects), folder, "responses", of("responses")), []
    if flow is not None:
        paths = save_flow(flow, folder) + paths
    if shown:
        named = choice.prompt is not None or choice.ablated or effects.sizes["prompt"] == 1
        first, second = ("" if named else why_chosen(effects, label) for _, label in shown)
        paths += save(figure1(effects, results, *shown[0], first), folder, "figure1", of("figure1"))
        paths += save(figure3(effects, results, *shown[1], second), folder, "figure3", of("figure3"))
    else:
        left_out.append("figures 1 and 3, which show the ablation of one component: this run ablated several at once")
    if not effects["direct"].any():
        left_out.append("figures 2, 7 and 8, which show direct effects: only positions before the last are ablated")
    elif ablated_kinds & {"attn", "mlp"}:
        paths += save(figure2(effects), folder, "figure2", of("figure2"))
        paths += save(figure7(effects), folder, "figure7", of("figure7"))
        if can_regress(effects):
            paths += save(figure8(effects), folder, "figure8", of("figure8"))
        else:
            left_out.append("figure 8, which regresses over prompts: this takes 3 prompts or more")
    else:
        left_out.append("figures 2, 7 and 8, which show ablated sublayers: this run ablated none")
    if "head" in ablated_kinds:
        paths += save(figure_heads(effects), folder, "heads", of("heads"))
    if flow is None:
        left_out.append("the repair flow, of one component: the summary chooses none; name one (--ablated)")
    return Drawn(folder, tuple(paths), tuple(left_out))


def _flow(results: xr.Dataset, effects: Effects, choice: Choice) -> RepairFlow | None:
    """Return the numbers of the repair flow; None if no component is named or chosen."""
    bootstrap = Bootstrap()
    found = verdicts(results, effects, bootstrap)
    if choice.ablated is None and choice.mediation is None and chosen(found) is None:
        return None
    return flow_of(results, effects, choice.ablated, choice.mediation, bootstrap, found)


def draw_mediation(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figures of a mediation: those of `draw_sweep`, and the mediators."""
    with_frozen = choice if choice.mediation is not None else replace(choice, mediation=results)
    drawn = draw_sweep(single_ablations(results), folder, with_frozen)
    readout = choice.readout or str(results["readout"].values[0])
    about = as_metadata("mediation", origin(results, readout))
    mediators = save(figure_mediation(results, choice.readout), folder, "mediation", about)
    return replace(drawn, paths=(*drawn.paths, *mediators))


def draw_interactions(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figure of interactions.

    Raises:
        HydrascopeError: a mediation is given.
    """
    if choice.mediation is not None:
        raise HydrascopeError("interactions have no repair flow: give a mediation together with a sweep")
    about = as_metadata("interactions", origin(results, choice.readout or str(results["readout"].values[0])))
    return Drawn(folder, tuple(save(figure_interactions(results, choice.readout), folder, "interactions", about)), ())
