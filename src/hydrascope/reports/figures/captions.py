"""Captions of figures for a paper: what is shown, of which run, what bounds are."""

import re
from collections.abc import Mapping
from pathlib import Path

from hydrascope.measures import Bootstrap
from hydrascope.reports.figures.panels import FEWEST_TO_REGRESS, printable
from hydrascope.reports.flow.naming import short_hash
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.source import Source, positions_in_words, weights_in_words
from hydrascope.reports.flow.words import title, why_not
from hydrascope.reports.summary.interval import percent
from hydrascope.reports.summary.verdict_text import ABLATED
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted

#: The characters with a meaning in Markdown or HTML.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|&~])")
_CLIPPED = "Axes are clipped where few points would flatten the rest; triangles and numbers stand for what is beyond."
_MATRIX = (
    "Blue makes up for the ablation, orange adds to its change; rows whose ablation removes nothing sure are faint."
)


def responses_caption(source: Source) -> str:
    """Return the caption of the figure of responses."""
    what = "ΔDE, the change of what each sublayer (columns) writes for the readout once a component (rows) is ablated"
    bars = (
        "Bars: what the ablation removes directly (outline) and what is lost in the end (solid); triangles with "
        "numbers stand for what is beyond the axis."
    )
    if source.count == 1:
        return _whole("Responses", f"{what}, on one prompt. {_MATRIX} {bars}", source)
    panels = f"{what}. (a) Means over prompts. (b) Those that are surely not 0, by bounds that hold for all at once."
    return _whole("Responses", f"{panels} {_MATRIX} {bars}", source)


def example_caption(source: Source, number: int, prompt: int, ablated: str, text: str, target: str) -> str:
    """Return the caption of Figure 1 or 3.

    Args:
        source: the run.
        number: the number of the figure.
        prompt: the index of the prompt.
        ablated: the label of the ablation.
        text: the prompt.
        target: the token that is read.
    """
    protocol = "The protocol, and the direct" if number == 1 else "The direct"
    of = f" ({source.patches} patches, faint, and their mean)" if source.patches > 1 else ""
    shown = f"“{printable(text, 120)}”, target “{printable(target)}”"
    what = (
        f"{protocol} effect of every sublayer on prompt {prompt} ({shown}): "
        f"black in the clean run, in colour with {ablated} ablated{of}. The dashed line is at the ablated block."
    )
    return _whole("Direct effects before and after an ablation", what, source, bounds=False)


def figure2_caption(source: Source) -> str:
    """Return the caption of Figure 2."""
    what = (
        "(a) The direct effect of every sublayer, Δ unembed, and (b) what is lost once it is ablated, −Δ ablate: grey "
        "each prompt, in colour their mean. (c) One against the other, a point for each prompt and sublayer."
    )
    if source.count >= FEWEST_TO_REGRESS:
        what += " (d) Their correlation over prompts and (e) the share of prompts with Δ unembed > −Δ ablate."
    return _whole("Unembedding and ablation", f"{what} {_CLIPPED}", source, _pointwise(source))


def figure7_caption(source: Source) -> str:
    """Return the caption of Figure 7."""
    what = (
        "Compensatory effect (the change of all later writes) against direct effect, of (a) attention sublayers and "
        "(c) MLPs, a point for each prompt and sublayer, coloured by depth"
    )
    if source.count >= FEWEST_TO_REGRESS:
        what += (
            ", with the regression line of each sublayer whose slope is surely not 0. (b) The sublayer of either kind "
            "with the highest R²; below, the one that each half of the prompts chose, on the other half. (d) Slope and "
            "R² over depth"
        )
    return _whole("Compensation", f"{what}. {_CLIPPED}", source, _pointwise(source))


def figure8_caption(source: Source) -> str:
    """Return the caption of Figure 8."""
    what = (
        "ΔDE of the later attention sublayers (blue) and MLPs (orange) against the direct effect of the ablated "
        "sublayer. (a) Ablated sublayers of either kind, among them the one with the highest R² of all compensation; a "
        "point per prompt and share. (b) Slope and (c) R² of all ablated sublayers."
    )
    return _whole("The response of attention and of MLPs", f"{what} {_CLIPPED}", source, _pointwise(source))


def heads_caption(source: Source) -> str:
    """Return the caption of the figure of heads."""
    what = (
        "What is lost once a head is ablated, and, where heads were read, its direct effect, a square per head. Orange "
        "is above 0; heads without a square weren’t ablated."
    )
    return _whole("Heads", what, source, bounds=False)


def mediation_caption(source: Source) -> str:
    """Return the caption of the figure of a mediation."""
    what = (
        "For every ablation (rows) and mediator (columns): (a) the change of what the mediator writes, (b) what is "
        "lost again once it is frozen and all others are free, (c) what it brings if all else downstream is frozen. "
    )
    return _whole("Who restores", what + _MATRIX, source, bounds=False)


def split_caption(source: Source) -> str:
    """Return the caption of the figure of a split."""
    what = (
        "For each ablation that surely removes: (a) the share that comes back prompt by prompt, after the ablation and "
        "after its opposite; (b) the share that comes back of the missing push along the readout alone (damping), and "
        "what comes back where the rest of the write alone is missing, as a share of what the whole removes. Shares "
        "beyond the axis are written at its edge."
    )
    return _whole("Damping and content repair", what, source)


def interactions_caption(source: Source) -> str:
    """Return the caption of the figure of interactions."""
    what = (
        "The effect of ablating both of two components less the effects of each alone. Blue: one covers for the other; "
        "orange: they need each other. (a) In the network’s order; (b) components with similar interactions together."
    )
    return _whole("Interactions", what, source, bounds=False)


def flow_caption(flow: RepairFlow) -> str:
    """Return the caption of the repair flow."""
    first, second = title(flow)
    finding = why_not(flow) or f"{first} {second}."
    if why_not(flow):
        return _whole("Repair flow", finding, flow.source, bounds=False)
    fill = (
        "Solid: surely necessary, the amount is lost again if the component is frozen; striped: sufficient alone; "
        "outlined: a response."
        if flow.mediated
        else "No run froze a component, so all branches are responses, not yet repairs."
    )
    means = " Means over prompts." if flow.certain else ""
    what = (
        f"{finding}{means} The band is what is missing of the readout, rising through the network; branches are what "
        f"later sublayers and the final norm make up for, and what reaches the top is lost. {fill}"
    )
    bounds = f"Intervals: {percent(flow.confidence)}, by resampling the prompts, at once for all components of a list."
    return _whole("Repair flow", what, flow.source, bounds if flow.certain else "")


def write_captions(folder: Path, captions: Mapping[str, str]) -> Path:
    """Write `captions.md`: a heading for each figure, and its caption.

    Args:
        folder: the folder of the figures.
        captions: the caption of each figure, by the name of its files.

    Raises:
        HydrascopeError: the file cannot be written.
    """
    path = folder / "captions.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n\n".join(f"## {name}\n\n{caption}" for name, caption in captions.items())
        path.write_text(f"# Captions\n\n{text}\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise HydrascopeError(f"cannot write figures to {folder}: {error.strerror or error}") from error
    return path


def _whole(name: str, what: str, source: Source, bounds: str | bool = True) -> str:
    """Return a caption: a bold name, what is shown, the bounds, the run."""
    if bounds is True:
        bounds = _at_once(source)
    parts = (f"**{name}.**", _escaped(what), bounds or "", _escaped(_run(source)))
    return " ".join(part for part in parts if part)


def _pointwise(source: Source) -> str:
    default = Bootstrap()
    if source.count < FEWEST_TO_REGRESS:
        return ""
    return f"Bands: {percent(default.confidence)} intervals by resampling the prompts, {default.resamples:,} times."


def _at_once(source: Source) -> str:
    default = Bootstrap()
    if source.count == 1:
        return ""
    return (
        f"Bounds: {percent(default.confidence)}, from {default.resamples:,} resamples of the prompts, at once for all "
        "values."
    )


def _run(source: Source) -> str:
    """Return the sentences on the run."""
    weights = weights_in_words(source)
    model = f"{source.model} ({weights})" if weights else source.model
    count = counted(source.count, "prompt", "prompts")
    prompts = f"{count} of {source.prompts}" if source.prompts else count
    prompts += f" ({short_hash(source.prompts_hash)})" if source.prompts_hash else ""
    how = ABLATED.get(source.ablation, f"ablated by {source.ablation}" if source.ablation else "ablated")
    patches = f", {source.patches} patches per prompt" if source.patches > 1 else ""
    version = f" Measured with hydrascope {source.version}." if source.version else ""
    return (
        f"Model: {model}; {prompts}. Ablated components are {how} at {positions_in_words(source.positions)}{patches}. "
        f"Readout: {source.reading}, in {source.unit}.{version}"
    )


def _escaped(text: str) -> str:
    """Return a text in which no character is Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", text)
