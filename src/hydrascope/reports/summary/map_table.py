"""The cells of a position map, as rows and as a table of the largest."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.prompts.token_line import one_line
from hydrascope.reports.summary.interval import number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


@dataclass(frozen=True)
class MapCell:
    """The cost of ablating one component at one token, in the readout's unit.

    Attributes:
        token: the token's index, counted from 0.
        text: the token's text.
        component: the component's label.
        cost: how much the readout falls; below 0 where it rises.
    """

    token: int
    text: str
    component: str
    cost: float


def map_cells(found: xr.Dataset) -> tuple[MapCell, ...]:
    """Return the cells of a map, the largest |cost| first.

    >>> largest = map_cells(hs.analyses.position_map(model, "the fox is"))[:3]

    Args:
        found: the result of `hydrascope.analyses.position_map`.
    """
    # No -0.0, which a reader of the rows might take for a gain.
    cost = found["cost"].transpose("token", "component").values + 0.0
    names, texts = found["component"].values, found["token_text"].values
    order = np.argsort(-abs(cost), axis=None, kind="stable")
    places = zip(*np.unravel_index(order, cost.shape), strict=True)
    return tuple(MapCell(int(i), str(texts[i]), str(names[j]), float(cost[i, j])) for i, j in places)


def named_cells(found: xr.Dataset) -> tuple[MapCell, ...]:
    """Return the cells to label in a picture, each once.

    They are those of the largest cost: of all, of each kind of component, and beyond block 1; and that of the largest
    gain. A cell within a hundredth of the largest |cost| of 0 isn't named.
    """
    cells, least = map_cells(found), 0.01 * float(abs(found["cost"]).max())
    names = found["component"].values
    kinds = dict(zip(names, found["component_kind"].values, strict=True))
    blocks = dict(zip(names, found["component_block"].values, strict=True))
    costs = [cell for cell in cells if cell.cost > least]
    groups = [
        costs,
        *([cell for cell in costs if kinds[cell.component] == kind] for kind in dict.fromkeys(kinds.values())),
        [cell for cell in costs if blocks[cell.component] > 1],
        [cell for cell in cells if cell.cost < -least],
    ]
    return tuple(dict.fromkeys(group[0] for group in groups if group))


def map_in_text(found: xr.Dataset, cells: tuple[MapCell, ...]) -> Group:
    """Return a table of the largest cells for a terminal."""
    unit, target = str(found.attrs.get("units", "logits")), one_line(str(found["target_text"].values))
    rows = ([str(cell.token), one_line(cell.text), cell.component, number(cell.cost, 2)] for cell in cells[:PRINTED])
    table = numbers_table("What ablating there costs", ("token", "text", "component"), ("cost",), rows)
    cut = f" {PRINTED} of {len(cells):,} cells are shown; all: --format csv." if len(cells) > PRINTED else ""
    notes = (
        f"In {unit} of the readout {found['readout'].values}: how much it falls if the component is ablated at that "
        f"token alone ({found.attrs['ablation']}); below 0 it rises. Target: “{target}”, with probability "
        f"{percent(float(found['probability']))} and a readout of {number(float(found['logit']), 2)} in the clean "
        f"pass.{cut}"
    )
    return Group(table, Text(""), Text(notes, style="dim"))
