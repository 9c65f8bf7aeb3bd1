"""Draw Figure 6 of the paper: the motifs erasure and self-repair, and their effects."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import LlamaConfig, LlamaForCausalLM

from hydrascope.causal.effects import compensatory_effect, contribution, direct_effect, total_effect
from hydrascope.causal.figures.causal_graph import Marks, draw, figure4, figure5
from hydrascope.causal.model import CausalModel, Context
from hydrascope.causal.motifs import erasure, self_repair
from hydrascope.causal.transformer import every_position_scm, final_position_scm
from hydrascope.models.language_model import LanguageModel
from hydrascope.reports.figures.style import BLACK, BLUE, GREY, PAGE, VERMILION, save, style

#: The number of contexts drawn from P(u).
CONTEXTS = 20

#: The context of the middle panels.
_U = {"u": 1.0}
_ABLATED = {"x": 0.0}
_PLACES = {"u": (0.5, 0.0), "x": (0.0, 0.5), "f": (0.8, 0.8), "y": (0.0, 1.2)}


def figure6() -> Figure:
    """Draw Fig. 6: the motifs as causal graphs, and the effects of setting x to 0.

    On the left are the graphs; an edge ends in a bar if the parent lowers the child. In the middle are the
    contributions of x and f to y in one context, before and after. On the right are the effects in contexts drawn from
    P(u): the compensatory effect cancels the direct effect, so the total effect is 0.
    """
    motifs = [
        ("erasure", erasure(), "$f = -x$"),
        ("self-repair", self_repair(), "$f = 0$ if $x = u$\n$f = u$ otherwise"),
    ]
    with style():
        figure, grid = plt.subplots(2, 3, figsize=(PAGE, 4.6), width_ratios=[1.1, 1, 1.2], sharex="col", sharey="col")
        for row, (name, model, formula) in enumerate(motifs):
            graph, close, wide = grid[row]
            _graph(graph, model, formula)
            graph.set_title(f"{'ad'[row]}   {name}", loc="left")
            _contributions(close, model)
            close.set_title(f"{'be'[row]}   contributions at u = 1", loc="left")
            _effects(wide, model)
            wide.set_title(f"{'cf'[row]}   effects on y of setting x to 0", loc="left")
        grid[0, 1].legend(loc="upper right")
        grid[0, 2].legend(loc="upper left")
        grid[1, 2].set_xlabel("x before it is set to 0")
    return figure


def _graph(axes: Axes, model: CausalModel, formula: str) -> None:
    draw(model, axes, places=_PLACES, marks=Marks(inhibiting={("x", "f")}))
    for name, text in {"y": "$y = x + f$", "x": "$x = u$", "f": formula}.items():
        offset, ha = ((-14, 0), "right") if name == "x" else ((14, 0), "left")
        axes.annotate(
            text, _PLACES[name], offset, textcoords="offset points", ha=ha, va="center", fontsize=7, parse_math=True
        )
    axes.set_xlim(-0.7, 2.2)


def _contributions(axes: Axes, model: CausalModel) -> None:
    ablated = model.do(_ABLATED)
    for shift, shown, colour, marker, label in [
        (-0.1, model, BLUE, "o", "clean"),
        (0.1, ablated, VERMILION, "D", "x set to 0"),
    ]:
        heights = [*(contribution(shown, name, "y", _U) for name in ("x", "f")), shown.value("y", _U)]
        axes.stem(
            [0 + shift, 1 + shift, 2 + shift], heights, linefmt=colour, markerfmt=marker, basefmt="none", label=label
        )
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xticks([0, 1, 2], ["from x", "from f", "y"])
    axes.set_xlim(-0.5, 2.9)
    axes.set_ylim(-1.3, 1.6)


def _effects(axes: Axes, model: CausalModel) -> None:
    contexts = [model.sample(draw=draw) for draw in range(CONTEXTS)]
    measured: list[tuple[str, str, str, Callable[[Context], float]]] = [
        ("direct", BLUE, "o", lambda u: direct_effect(model, _ABLATED, "y", u)),
        ("compensatory", VERMILION, "^", lambda u: compensatory_effect(model, _ABLATED, "y", u)),
        ("total", BLACK, "s", lambda u: total_effect(model, _ABLATED, "y", u)),
    ]
    x = [model.value("x", u) for u in contexts]
    for label, colour, marker, effect in measured:
        axes.plot(x, [effect(u) for u in contexts], linestyle="none", marker=marker, color=colour, label=label)
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xlim(0, np.max(x) * 1.1)
    axes.set_ylim(-2.8, 5.2)


def draw_all(folder: Path) -> list[Path]:
    """Write Fig. 4, 5 and 6 to `folder`, each as PNG, PDF and SVG, and return the paths.

    Fig. 4 shows a transformer with two blocks and random weights, at three positions.

    Raises:
        HydrascopeError: the folder cannot be written.
    """
    model = small_transformer()
    written = []
    for name, figure in [
        ("figure4", figure4(every_position_scm(model, 3), final_position_scm(model), "attn.0")),
        ("figure5", figure5()),
        ("figure6", figure6()),
    ]:
        written += save(figure, folder, name)
        plt.close(figure)
    return written


def small_transformer() -> LanguageModel:
    """Return a transformer with two blocks and random weights, enough for a causal graph."""
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1)
    return LanguageModel(LlamaForCausalLM(config))
