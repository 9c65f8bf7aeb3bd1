"""Figures 1 and 3: every sublayer's direct effect on a prompt before and after an ablation."""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from hydrascope.measures import (
    ComponentKind,
    Effects,
    block_numbers,
    by_patch,
    candidates,
    depth,
    kinds,
    most_restored,
    of_kind,
    strength,
    takes_effects,
)
from hydrascope.reports.figures import style
from hydrascope.reports.figures.figure1_protocol import protocol
from hydrascope.reports.figures.panels import (
    COLOUR,
    KINDS,
    NAME,
    block_axis,
    faint_lines,
    name_reading,
    printable,
    zero_line,
)
from hydrascope.utils.errors import HydrascopeError

#: The line at the block of the ablated component.
_ABLATED_LINE: dict[str, Any] = {"color": style.BLACK, "linewidth": 0.8, "linestyle": "--"}
#: The kinds of components that examples are chosen from, in order of preference.
_PREFERRED: tuple[ComponentKind, ...] = ("attn", "mlp", "head", "neuron", "feature")


@takes_effects
def examples(
    effects: Effects, prompt: int | None = None, ablated: str | None = None
) -> tuple[tuple[int, str], tuple[int, str]]:
    """Choose the prompt and the ablated component that Figures 1 and 3 show.

    The choice is typical. The component is the one with the largest share restored on average (`most_restored`), of the
    first kind with anything restored: attention, MLPs, heads, neurons. The prompts come from the half on which its
    ablation removes most; their shares restored are nearest to the median of that half. If no component can be chosen
    so, the largest direct effect decides: by what is removed if DE wasn't read, and by what is lost if only positions
    before the last are ablated. Figure 3 takes another prompt than Figure 1, or another component if `prompt` is given
    or the only one.

        >>> first, second = examples(effects)

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        prompt: the index of the prompt, to choose the component alone.
        ablated: the label of the ablation, to choose the prompts alone.

    Returns:
        The prompt's index and the ablation's label, for Figure 1 and for Figure 3.

    Raises:
        HydrascopeError: there is no such prompt or ablation, or the run ablated several components at once.
    """
    prompts, labels = effects.sizes["prompt"], [str(label) for label in effects["ablated"].values]
    single = dict(zip(labels, kinds(effects["ablated"]), strict=True))
    if prompt is not None and not 0 <= prompt < prompts:
        raise HydrascopeError(f"there is no prompt {prompt}: this result holds prompts 0 to {prompts - 1}")
    if ablated is not None and ablated not in labels:
        raise HydrascopeError(f"{ablated} isn't among what this run ablated: {_some(labels)}")
    if (ablated is None and set(single.values()) == {"joint"}) or single.get(str(ablated)) == "joint":
        raise HydrascopeError(
            "figures 1 and 3 show the ablation of one component, and this run ablated several at once"
        )
    if prompt is not None and ablated is not None:
        return (prompt, ablated), (prompt, ablated)
    kind = (
        single[ablated]
        if ablated
        else _first_restored_kind(effects, [kind for kind in _PREFERRED if kind in single.values()])
    )
    scores = _typical(effects, kind)  # type: ignore[arg-type]
    if scores is None or ablated not in (None, *scores["ablated"].values):
        scores = of_kind(_size(effects), "ablated", kind)  # type: ignore[arg-type]
    scores = scores.sel(ablated=[ablated]) if ablated else scores
    chosen = scores.values if prompt is None else scores.values[[prompt]]
    # argmax would choose NaN.
    chosen = np.where(np.isnan(chosen), -np.inf, chosen)
    row, column = np.unravel_index(chosen.argmax(), chosen.shape)
    left = chosen.copy()
    if len(chosen) > 1:
        left[row] = -np.inf
    elif chosen.shape[1] > 1:
        left[:, column] = -np.inf
    other_row, other_column = np.unravel_index(left.argmax(), left.shape)

    def named(row: np.intp, column: np.intp) -> tuple[int, str]:
        return int(row) if prompt is None else prompt, str(scores["ablated"].values[column])

    return named(row, column), named(other_row, other_column)


@takes_effects
def why_chosen(effects: Effects, ablated: str) -> str:
    """Return the reason why `examples` chooses this component."""
    kind = kinds(effects["ablated"].sel(ablated=[ablated]))[0]
    shares = _shares(effects, kind)  # type: ignore[arg-type]
    if ablated not in shares["ablated"].values or shares.sel(ablated=ablated).isnull():
        return f"chosen for {'its large direct effect' if effects['direct'].any() else 'how much is lost without it'}"
    if shares.sel(ablated=ablated) > 0:
        return "chosen as a typical example of what is restored"
    return "chosen as a typical example; on average nothing is restored"


def _first_restored_kind(effects: Effects, ablated: list[ComponentKind]) -> ComponentKind:
    """Return the first ablated kind with anything restored on average; else the first kind."""
    return next((kind for kind in ablated if (_shares(effects, kind) > 0).any()), ablated[0])


def _shares(effects: Effects, kind: ComponentKind) -> xr.DataArray:
    """Return the share restored [ablated] of the components of one kind that can be chosen."""
    samples = candidates(effects, kind)
    return most_restored(samples) if samples.sizes["ablated"] else samples["removed"].mean("prompt")


def _size(effects: Effects) -> xr.DataArray:
    """Return the size [prompt, ablated] of each effect, to choose by if none is typical."""
    return strength(effects) if effects["direct"].any() else -effects["total"]


def _typical(effects: Effects, kind: ComponentKind) -> xr.DataArray | None:
    """Return a score [prompt, ablated] of typical examples; None if there are none.

    A component with a larger mean share restored scores above others on every prompt.
    """
    samples = candidates(effects, kind)
    if not samples.sizes["ablated"] or most_restored(samples).isnull().all():
        return None
    removed = samples["removed"]
    share = (samples["restored"] / removed).where(removed > removed.median("prompt"))
    distance = abs(share - share.median("prompt"))
    # Ranks are bounded; distances are not.
    near = 1 - _ranks(distance, "prompt") / (2 * samples.sizes["prompt"])
    return (_ranks(most_restored(samples), "ablated") + near).transpose("prompt", "ablated")


def _ranks(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Return ranks from 0 along `dim`; NaN stays NaN."""
    axis = values.get_axis_num(dim)
    ranks = values.copy(data=values.values.argsort(axis).argsort(axis).astype(np.float64))
    return ranks.where(values.notnull())


def _some(labels: list[str]) -> str:
    return ", ".join(labels) if len(labels) <= 6 else f"{labels[0]}, {labels[1]}, … {labels[-1]}"


@takes_effects
def figure1(
    effects: Effects,
    results: xr.Dataset,
    prompt: int | None = None,
    ablated: str | None = None,
    why: str = "",
) -> Figure:
    """Draw the protocol, and direct effects before and after an ablation (Figure 1).

    Defaults and errors are those of `examples`.

        >>> figure = figure1(effects, results)

    Args:
        effects: the effects of `results`.
        results: the results of a run. Every patch is drawn if the run kept patches one by one, else their mean.
        prompt: the index of the prompt; by default that of the first example.
        ablated: the label of the ablation; by default that of the first example.
        why: the reason for the choice, for the title.
    """
    prompt, ablated = examples(effects, prompt, ablated)[0]
    shown = _one(effects, results, prompt, ablated)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 4.1), layout="constrained")
        name_reading(figure, effects)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.5))[:, 0]
        protocol(above.subplots(), results, ablated, _outcome(shown, "logit of the\ntarget token"))
        attention, mlp = below.subplots(1, 2, sharex=True)
        _both_kinds(shown, attention, mlp)
        mlp.set_ylabel("")
        below.suptitle(_title(shown, prompt, 84, why), fontsize=8)
        _legend(below, shown, results.sizes["patch"])
    return figure


@takes_effects
def figure3(
    effects: Effects,
    results: xr.Dataset,
    prompt: int | None = None,
    ablated: str | None = None,
    why: str = "",
) -> Figure:
    """Draw direct effects on one prompt before and after an ablation, large (Figure 3).

    The arguments are those of `figure1`; the default is the second example.

        >>> figure = figure3(effects, results)
    """
    prompt, ablated = examples(effects, prompt, ablated)[1]
    shown = _one(effects, results, prompt, ablated)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 4.8), layout="constrained")
        name_reading(figure, effects)
        # Of its own, since the figure's title names the run.
        whole = figure.subfigures(1, 1, squeeze=False)[0, 0]
        attention, mlp = whole.subplots(2, 1, sharex=True)
        _both_kinds(shown, attention, mlp)
        attention.set_xlabel("")
        whole.align_ylabels()
        whole.suptitle(_title(shown, prompt, 88, why), fontsize=8)
        _legend(whole, shown, results.sizes["patch"])
    return figure


def _one(effects: Effects, results: xr.Dataset, prompt: int, ablated: str) -> Effects:
    """Return the effects of one ablation on one prompt, with `by_patch` if the run kept it."""
    shown = effects.isel(prompt=[prompt]).sel(ablated=[ablated])
    one = results.isel(prompt=[prompt]).sel(ablated=[ablated])
    patches = by_patch(one, effects.readout, effects.sigma)
    if patches is not None:
        shown = replace(shown, data=shown.data.assign(by_patch=patches.drop_vars(patches.coords)))
    return shown.isel(prompt=0, ablated=0)


def _title(shown: Effects, prompt: int, limit: int, why: str) -> str:
    """Return the title: the prompt, its target token, and why it was chosen."""
    text, target = (str(shown[name].values) for name in ("text", "target_text"))
    first = f"Prompt {prompt}: {printable(text, limit)}  ▸  “{printable(target, 24)}”"
    return f"{first}\n{why[:1].upper()}{why[1:]}" if why else first


def _outcome(shown: Effects, logit: str) -> str:
    """Return the text `logit` if the readout is the logit, else the readout's name."""
    return logit if shown.readout == "logit" else printable(shown.readout, 18)


def _both_kinds(shown: Effects, attention: Axes, mlp: Axes) -> None:
    """Draw direct effects of attention in one panel, and of MLPs in the other."""
    top = depth(shown)
    size = float(np.clip(60 / top, 1, 3.5))
    outcome = _outcome(shown, "the\ntarget’s logit")
    for axes, kind in zip((attention, mlp), KINDS, strict=True):
        selected = of_kind(shown, "component", kind)
        x = block_numbers(selected["component"])
        zero_line(axes)
        axes.axvline(int(shown["ablated_block"]), **_ABLATED_LINE)
        if selected.sizes.get("patch", 1) > 1:
            faint_lines(axes, x, selected["by_patch"].transpose("patch", "component").values, COLOUR[kind], alpha=0.3)
        axes.plot(x, selected["unembed"], color=style.BLACK, marker="o", markersize=size, zorder=4)
        axes.plot(x, selected["unembed_ablated"], color=COLOUR[kind], marker="s", markersize=size, zorder=5)
        block_axis(axes, top)
        axes.set_title(f"{NAME[kind]} sublayers")
        axes.set_ylabel(f"Direct effect on {outcome} ({shown.unit})")


def _legend(figure: SubFigure, shown: Effects, patches: int) -> None:
    """Draw one legend for both panels, with entries in both kinds' colours."""
    faint, mean = (
        tuple(Line2D([], [], color=COLOUR[kind], **look) for kind in KINDS)
        for look in ({"linewidth": 0.6, "alpha": 0.6}, {"marker": "s"})
    )
    kept = "by_patch" in shown.data
    how = {False: "", True: f", mean of {patches} patches" + ("" if kept else " (only the mean was kept)")}[patches > 1]
    entries: dict[str, Any] = {
        "clean": Line2D([], [], color=style.BLACK, marker="o"),
        f"{shown['ablated'].item()} ablated{how}": mean,
    }
    if patches > 1 and kept:
        entries["each patch"] = faint
    entries["the ablated sublayer" if shown["ablated_unit"] < 0 else "its sublayer"] = Line2D([], [], **_ABLATED_LINE)
    handler = {tuple: HandlerTuple(ndivide=None, pad=0.3)}
    figure.legend(
        list(entries.values()),
        list(entries),
        handler_map=handler,
        loc="outside lower center",
        ncols=4,
        handlelength=3,
    )
