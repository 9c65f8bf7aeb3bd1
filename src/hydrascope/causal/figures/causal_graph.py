"""Draw causal graphs, among them Figures 4 and 5 of the paper.

`draw` draws any causal model, `figure4` a language model, `figure5` the three effects on a two-layer network.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.causal.effects import effects
from hydrascope.causal.model import CausalModel
from hydrascope.causal.motifs import two_layer_residual_network
from hydrascope.reports.figures.style import BLACK, BLUE, GREY, PAGE, SKY, VERMILION, style

Edge = tuple[str, str]

_EXOGENOUS = {"node_shape": "o", "node_color": "white", "edgecolors": GREY}
_ENDOGENOUS = {"node_shape": "o", "node_color": "white", "edgecolors": BLACK}
_INTERVENED = {"node_shape": "s", "node_color": VERMILION, "edgecolors": BLACK}
_SOURCE = {"node_shape": "o", "node_color": "#CFE5F4", "edgecolors": BLUE}
_FROZEN = {"node_shape": "s", "node_color": SKY, "edgecolors": BLACK}


@dataclass(frozen=True)
class Marks:
    """The edges and variables to mark in a causal graph.

    Attributes:
        carrying: edges that carry the effect; see `effect_edges`.
        frozen: variables frozen at the value they had.
        removed: edges that an intervention has cut; see `removed_edges`.
        inhibiting: edges from a parent that lowers its child; they end in a bar (Fig. 6).
        source: the changed variable, if no intervention shows it.
    """

    carrying: Collection[Edge] = ()
    frozen: Collection[str] = ()
    removed: Collection[Edge] = ()
    inhibiting: Collection[Edge] = ()
    source: str | None = None


NOTHING = Marks()


def effect_edges(model: CausalModel, changed: str, outcome: str) -> set[Edge]:
    """Return the edges that carry the total effect: all on paths from `changed` to `outcome`."""
    after, before = model.descendants(changed) | {changed}, model.ancestors(outcome) | {outcome}
    return {(parent, child) for parent, child in model.graph.edges if parent in after and child in before}


def removed_edges(original: CausalModel, intervened: CausalModel) -> set[Edge]:
    """Return the edges of `original` that interventions have cut in `intervened`."""
    return set(original.graph.edges) - set(intervened.graph.edges)


def layout(model: CausalModel) -> dict[str, tuple[float, float]]:
    """Return x and y in [0, 1] for each variable, with every variable above its parents."""
    rows = list(nx.topological_generations(model.graph))
    return {
        name: ((i + 1) / (len(row) + 1), y / max(len(rows) - 1, 1))
        for y, row in enumerate(rows)
        for i, name in enumerate(row)
    }


def draw(
    model: CausalModel,
    axes: Axes | None = None,
    *,
    places: Mapping[str, tuple[float, float]] | None = None,
    labels: Mapping[str, str] | None = None,
    marks: Marks = NOTHING,
    node_size: float = 420,
) -> Axes:
    """Draw a causal model: exogenous variables in grey, intervened ones as red squares.

        >>> from hydrascope.causal.motifs import erasure
        >>> axes = draw(erasure(), labels={"f": "$-x$"})

    Args:
        model: the causal model, after any interventions.
        axes: the axes to draw on; by default those of a new figure.
        places: x and y of every variable; by default those of `layout`.
        labels: labels that replace the names of variables; $…$ is a formula.
        marks: the edges and variables to mark.
        node_size: the area of a node, in square points.

    Returns:
        The axes.
    """
    places = dict(places or layout(model))
    labels = {name: (labels or {}).get(name, name) for name in model.graph}
    with style():
        axes = axes or plt.figure(figsize=_size(places)).subplots()
        graph = nx.DiGraph(model.graph)
        graph.add_edges_from(marks.removed)
        for edge in graph.edges:
            _draw_edge(axes, graph, places, edge, model, marks, node_size)
        for look, names in _looks(model, marks):
            nx.draw_networkx_nodes(graph, places, names, node_size=node_size, linewidths=0.8, ax=axes, **look)
        for name, text in labels.items():
            colour = "white" if name in model.intervened and name not in marks.frozen else BLACK
            label = axes.annotate(text, places[name], ha="center", va="center", fontsize=7, color=colour, zorder=5)
            label.set_parse_math(True)
        axes.set_axis_off()
        axes.margins(0.1)
    return axes


def _size(places: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    rows = {y for _, y in places.values()}
    widest = max(sum(y == row for _, y in places.values()) for row in rows)
    return 1.0 + 0.8 * widest, 0.4 + 0.6 * len(rows)


def _looks(model: CausalModel, marks: Marks) -> list[tuple[dict[str, str], list[str]]]:
    frozen = set(marks.frozen)
    intervened = model.intervened - frozen
    source = {marks.source} if marks.source else set()
    return [
        (_EXOGENOUS, list(model.exogenous)),
        (_ENDOGENOUS, [name for name in model.endogenous if name not in intervened | frozen | source]),
        (_INTERVENED, sorted(intervened)),
        (_FROZEN, sorted(frozen)),
        (_SOURCE, sorted(source)),
    ]


def _draw_edge(
    axes: Axes,
    graph: "nx.DiGraph[str]",
    places: Mapping[str, tuple[float, float]],
    edge: Edge,
    model: CausalModel,
    marks: Marks,
    node_size: float,
) -> None:
    if edge in marks.removed:
        look = {"edge_color": GREY, "style": (0, (1, 2)), "width": 0.8}
    elif edge in marks.carrying:
        look = {"edge_color": BLUE, "style": "solid", "width": 2.0}
    else:
        look = {"edge_color": GREY, "style": "solid", "width": 0.7}
    # The margin keeps the bar from being hidden behind the child.
    bar = {"arrowstyle": "|-|,widthA=0,widthB=0.6", "min_target_margin": node_size**0.5 / 2 + 2.5}
    head = bar if edge in marks.inhibiting else {"arrowstyle": "-|>"}
    nx.draw_networkx_edges(
        graph,
        places,
        [edge],
        arrowsize=8,
        connectionstyle=f"arc3,rad={_bend(places, edge)}",
        node_size=node_size,
        ax=axes,
        **head,
        **look,
    )


def _bend(places: Mapping[str, tuple[float, float]], edge: Edge) -> float:
    """Return the curvature of an edge: 0.3 if a node lies on its straight line, else 0."""
    (x0, y0), (x1, y1) = places[edge[0]], places[edge[1]]
    for name, (x, y) in places.items():
        along = (x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        across = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
        if name not in edge and 0 < along < length and across**2 < 0.0025 * length:
            return 0.3
    return 0.0


def figure4(every_position: CausalModel, final_position: CausalModel, changed: str) -> Figure:
    """Draw Fig. 4: a transformer as a causal model, at all positions and at the final one.

    The paths that carry the effect of the component `changed` at the final position are marked. The final residual
    stream is left out, since no other variable reads it.

    Args:
        every_position: the model of `hydrascope.causal.transformer.every_position_scm`, for a small language model and
            a short prompt.
        final_position: the model of `final_position_scm`, for the same language model.
        changed: a component's label, such as `attn.0`.
    """
    last = every_position.endogenous["logits"].parents[0].partition("@")[2]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 4.4), width_ratios=[1.7, 1])
        for axes, model, source, title in [
            (left, every_position, f"{changed}@{last}", "a   every position"),
            (right, final_position, changed, "b   the final position alone"),
        ]:
            shown = _without(model, "residual")
            marks = Marks(carrying=effect_edges(shown, source, "logits"), source=source)
            draw(shown, axes, places=_transformer_places(shown), labels=_transformer_labels(shown), marks=marks)
            axes.set_title(title)
        handles = [_node(_EXOGENOUS, "exogenous"), _node(_SOURCE, "changed"), _CARRYING]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _without(model: CausalModel, name: str) -> CausalModel:
    kept = [variable for other, variable in model.endogenous.items() if other != name]
    return CausalModel(*model.exogenous.values(), *kept)


def _transformer_places(model: CausalModel) -> dict[str, tuple[float, float]]:
    """Return x and y of each variable: token positions along x, depth along y.

    MLPs stand to the right of the attention sublayers.
    """
    positions = [int(name.partition("@")[2]) for name in model.endogenous if "@" in name] or [0]
    blocks = [int(name.partition("@")[0].partition(".")[2]) for name in model.endogenous if "." in name]
    places = {"prompt": (max(positions) / 2, -1.0), "logits": (float(max(positions)), 2.0 * max(blocks) + 3.4)}
    for name in model.endogenous:
        component, _, position = name.partition("@")
        kind, _, block = component.partition(".")
        column = float(position or 0)
        if kind == "embed":
            places[name] = (column, 0.0)
        elif kind in ("attn", "mlp"):
            shift, rise = (-0.22, 1.0) if kind == "attn" else (0.22, 1.9)
            places[name] = (column + shift, rise + 2.0 * int(block))
    return places


def _transformer_labels(model: CausalModel) -> dict[str, str]:
    """Return the paper's letters: x prompt, e embedding, a and m sublayers, π̂ logits."""
    letters = {"prompt": "x", "embed": "e", "attn": "a", "mlp": "m", "logits": r"\hat{\pi}"}
    labels = {}
    for name in model.graph:
        component, _, position = name.partition("@")
        kind, _, block = component.partition(".")
        labels[name] = f"${letters[kind]}^{{{block}}}_{{{position}}}$"
    return labels


def figure5() -> Figure:
    """Draw Fig. 5: total, direct and indirect effect of setting a₁ to 0 in a small network.

    Each panel shows the model that the definition evaluates, with every variable's value in the context u = 1.
    """
    model, u = two_layer_residual_network(), {"u": 1.0}
    answer = effects(model, {"a1": 0.0}, "y", u)
    clean = model.evaluate(u)
    ablated = model.do(a1=0.0)
    direct = model.do(a1=0.0, e=clean["e"], a2=clean["a2"])
    indirect = model.do(a1=clean["a1"], e=clean["e"], a2=ablated.value("a2", u))
    paths = effect_edges(model, "a1", "y")
    panels = [
        (f"the model: y = {clean['y']:g}", "", model, NOTHING),
        (f"total effect: {_signed(answer.total)}", "do(a₁ = 0)", ablated, Marks(paths)),
        (
            f"direct effect: {_signed(answer.direct)}",
            "do(a₁ = 0), the rest frozen",
            direct,
            Marks({("a1", "y")}, frozen={"e", "a2"}),
        ),
        (
            f"indirect effect: {_signed(answer.indirect)}",
            "do(a₂ = ã₂), the rest frozen",
            indirect,
            Marks({("a2", "y")}, frozen={"e", "a1"}),
        ),
    ]
    places = {"u": (0.0, 0.0), "e": (0.0, 0.3), "a1": (0.55, 0.5), "a2": (0.55, 0.8), "y": (0.0, 1.0)}
    with style():
        figure, grid = plt.subplots(1, 4, figsize=(PAGE, 3.0))
        for axes, letter, (title, setting, shown, marks) in zip(grid, "abcd", panels, strict=True):
            cut = replace(marks, removed=removed_edges(model, shown))
            draw(shown, axes, places=places, marks=cut, labels={"a1": "$a_1$", "a2": "$a_2$"})
            for name, value in {**u, **shown.evaluate(u)}.items():
                beside = (0, 15) if name == "y" else (13, 0)
                axes.annotate(
                    f"{value:g}",
                    places[name],
                    beside,
                    textcoords="offset points",
                    ha="center" if name == "y" else "left",
                    va="center",
                    fontsize=7,
                )
            axes.set_title(f"{letter}   {title}\n{setting}")
        handles = [
            _node(_EXOGENOUS, "exogenous"),
            _node(_INTERVENED, "set by do()"),
            _node(_FROZEN, "frozen at its clean value"),
            _CARRYING,
            _CUT,
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _signed(number: float) -> str:
    return f"{number:+g}".replace("-", "−")


def _node(look: dict[str, str], label: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=look["node_shape"],
        markersize=7,
        markerfacecolor=look["node_color"],
        markeredgecolor=look["edgecolors"],
        label=label,
    )


_CARRYING = Line2D([], [], color=BLUE, linewidth=2.0, label="carries the effect")
_CUT = Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label="cut by do()")
