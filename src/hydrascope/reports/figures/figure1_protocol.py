"""The drawing of the measurement: the upper half of Figure 1."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hydrascope.measures import depth
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import COLOUR, KINDS, printable

#: The x coordinates of the sublayers: of the block below, the ablated block, and the block above.
_X = (2.2, 3.2, 4.4, 5.4, 6.6, 7.6)
#: The y coordinates of the source's and of the prompt's residual stream.
_OTHER, _OWN = 1.75, 0.6


def protocol(axes: Axes, results: xr.Dataset, ablated: str, outcome: str) -> None:
    """Draw the residual streams of the patch's source and the prompt, and the ablation.

    A head or neuron is drawn as its sublayer. Sublayers downstream of the ablation, which can respond, are tinted.

    Args:
        axes: the panel.
        results: the results of a run.
        ablated: the label of the ablation.
        outcome: the name of the readout.
    """
    cut = results[["downstream"]].sel(ablated=ablated)
    block, in_attention = int(cut["ablated_block"]), str(cut["ablated_kind"].values) in ("attn", "head")
    at, other_kind = (2, "mlp") if in_attention else (3, "attn")
    same_block = bool(cut["downstream"].sel(component=f"{other_kind}.{block}"))
    top = block == depth(results) - 1
    # An ablation of the user's own needn't say where its patches come from. Only zero ablation says that it's nowhere.
    source = printable(str(results.attrs.get("patch_source", "a patch")), limit=24)
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(-0.15, 2.2)

    if source:
        axes.add_patch(_arrow((1.55, _OTHER), (8.35, _OTHER), style.GREY))
        axes.text(1.45, _OTHER, source, ha="right", va="center", color=style.GREY, fontsize=7)
    axes.add_patch(_arrow((1.55, _OWN), (8.35, _OWN), style.BLACK))
    axes.text(1.45, _OWN, "this prompt", ha="right", va="center", fontsize=7)
    axes.text(8.45, _OWN, outcome, ha="left", va="center", fontsize=7)
    responding = []
    for i, x in enumerate(_X):
        kind = KINDS[i % 2]
        if (i // 2 == 0 and block == 0) or (i // 2 == 2 and top):
            continue
        if source:
            _box(axes, x, _OTHER, kind, COLOUR[kind] if i == at else style.GREY)
        if i == at:
            _box(axes, x, _OWN, "patch" if source else "zero", COLOUR[kind], linestyle="--")
            axes.add_patch(_arrow((x, _OTHER - 0.28), (x, _OWN + 0.3), COLOUR[kind]))
            middle = (_OTHER + _OWN) / 2
            axes.text(x + 0.12, middle, f"in place of {ablated}", fontsize=7, va="center", color=COLOUR[kind])
            continue
        responds = i // 2 == 2 or (i // 2 == 1 and same_block)
        responding += [x] if responds else []
        _box(axes, x, _OWN, kind, COLOUR[kind], face="#FFEBC2" if responds else "white")
    if responding:
        middle = (responding[0] + responding[-1]) / 2
        axes.text(middle, 0.06, "downstream: may respond", fontsize=7, ha="center", va="center")


def _box(axes: Axes, x: float, y: float, text: str, colour: str, face: str = "white", linestyle: str = "-") -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.36, y - 0.2),
            0.72,
            0.4,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            edgecolor=colour,
            facecolor=face,
            linestyle=linestyle,
            linewidth=0.9,
            zorder=3,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=7, color=colour, zorder=4)


def _arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, linewidth=0.8, color=colour, zorder=2)
