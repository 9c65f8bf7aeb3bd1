"""Write every figure of a result as PNG, PDF and SVG, with a function per kind of result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from hydrascope.measures import Bootstrap, Effects, Sigma, kinds, per_prompt, require_complete, single_ablations
from hydrascope.reports.figures import captions
from hydrascope.reports.figures.figure2 import figure2
from hydrascope.reports.figures.figure7 import figure7
from hydrascope.reports.figures.figure8 import figure8
from hydrascope.reports.figures.figures_1_3 import examples, figure1, figure3, why_chosen
from hydrascope.reports.figures.flow import save_flow
from hydrascope.reports.figures.heads import figure_heads
from hydrascope.reports.figures.mediation import figure_interactions, figure_mediation
from hydrascope.reports.figures.origin import as_metadata
from hydrascope.reports.figures.panels import can_regress
from hydrascope.reports.figures.responses import figure_responses
from hydrascope.reports.figures.split import figure_split
from hydrascope.reports.figures.style import save
from hydrascope.reports.flow.measured import chosen, flow_of
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.source import Source, as_named, source_of
from hydrascope.reports.summary.summarise import read_effects
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
        captions: the caption of each figure, by the name of its files.
    """

    folder: Path
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]
    captions: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        files = f"{len(self.paths)} files and captions.md in {self.folder}"
        return "\n".join((files, *(f"left out: {why}" for why in self.skipped)))


def draw_sweep(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the repair flow, responses, Figures 1, 2, 3, 7 and 8, and heads of single ablations."""
    effects = per_prompt(results, choice.readout, choice.sigma)
    require_complete(effects)
    ablated_kinds = set(kinds(effects["ablated"]))
    traced = ablated_kinds != {"joint"} or choice.ablated
    # Examples come first, so that nothing is written if the prompt or ablation doesn't exist.
    shown = examples(effects, choice.prompt, choice.ablated) if traced else ()
    flow, source = _flow(results, effects, choice), source_of(effects)
    written, left_out = _Written(folder, source), []
    if flow is not None:
        written.paths += save_flow(flow, folder)
        written.captions["flow"] = captions.flow_caption(flow)
    written.add("responses", figure_responses(effects), captions.responses_caption(source))
    if shown:
        named = choice.prompt is not None or choice.ablated or effects.sizes["prompt"] == 1
        for number, draw, (prompt, label) in zip((1, 3), (figure1, figure3), shown, strict=True):
            figure = draw(effects, results, prompt, label, "" if named else why_chosen(effects, label))
            text, target = (str(effects[name].values[prompt]) for name in ("text", "target_text"))
            written.add(
                f"figure{number}", figure, captions.example_caption(source, number, prompt, label, text, target)
            )
    else:
        left_out.append("figures 1 and 3, which show the ablation of one component: this run ablated several at once")
    if not effects["direct"].any():
        left_out.append("figures 2, 7 and 8, which show direct effects: only positions before the last are ablated")
    elif ablated_kinds & {"attn", "mlp"}:
        written.add("figure2", figure2(effects), captions.figure2_caption(source))
        written.add("figure7", figure7(effects), captions.figure7_caption(source))
        if can_regress(effects):
            written.add("figure8", figure8(effects), captions.figure8_caption(source))
        else:
            left_out.append("figure 8, which regresses over prompts: this takes 3 prompts or more")
    else:
        left_out.append("figures 2, 7 and 8, which show ablated sublayers: this run ablated none")
    if "head" in ablated_kinds:
        written.add("heads", figure_heads(effects), captions.heads_caption(source))
    if flow is None:
        left_out.append("the repair flow, of one component: the summary chooses none; name one (--ablated)")
    return written.drawn(left_out)


class _Written:
    """The figures written so far, with their captions."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self.source = folder, source
        self.paths: list[Path] = []
        self.captions: dict[str, str] = {}

    def add(self, name: str, figure: Figure, caption: str) -> None:
        """Save a figure, its files with the run that it is of."""
        self.paths += save(figure, self.folder, name, as_metadata(name, as_named(self.source)))
        self.captions[name] = caption

    def drawn(self, left_out: Sequence[str] = ()) -> Drawn:
        """Return all that is written."""
        return Drawn(self.folder, tuple(self.paths), tuple(left_out), self.captions)


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
    figure = figure_mediation(results, choice.readout)
    return _with_figure(drawn, results, choice, "mediation", figure, captions.mediation_caption)


def draw_split(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figures of a split: those of `draw_sweep`, and the split of each ablation."""
    drawn = draw_sweep(single_ablations(results), folder, choice)
    figure = figure_split(results, choice.readout)
    return _with_figure(drawn, results, choice, "split", figure, captions.split_caption)


def _with_figure(
    drawn: Drawn, results: xr.Dataset, choice: Choice, name: str, figure: Figure, caption: Callable[[Source], str]
) -> Drawn:
    """Save one more figure, and return all that is drawn."""
    source = source_of(read_effects(results, choice.readout))
    written = _Written(drawn.folder, source)
    written.add(name, figure, caption(source))
    more = {**drawn.captions, **written.captions}
    return replace(drawn, paths=(*drawn.paths, *written.paths), captions=more)


def draw_interactions(results: xr.Dataset, folder: Path, choice: Choice) -> Drawn:
    """Draw the figure of interactions.

    Raises:
        HydrascopeError: a mediation is given.
    """
    if choice.mediation is not None:
        raise HydrascopeError("interactions have no repair flow: give a mediation together with a sweep")
    source = source_of(read_effects(results, choice.readout))
    written = _Written(folder, source)
    written.add("interactions", figure_interactions(results, choice.readout), captions.interactions_caption(source))
    return written.drawn()
