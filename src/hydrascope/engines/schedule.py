"""When each row of a plan joins the wavefront, and what it writes where: bookkeeping without a tensor of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydrascope.components import Component
from hydrascope.engines.rows import Row, Value


@dataclass(frozen=True)
class Write:
    """What a component's rows write instead of what the component would: `values[i]` at place `places[i]`."""

    places: tuple[int, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Schedule:
    """Rows in the order in which they join. Place 0 is the clean run, which is never overridden.

    Attributes:
        place: where each row of the plan stands.
        starts: per component, the places of the rows that are ablated there first: `[first, last)`.
        writes: per component, what the rows that override it write.
        rows: the number of places.
    """

    place: tuple[int, ...]
    starts: dict[Component, tuple[int, int]]
    writes: dict[Component, Write]
    rows: int


def schedule(rows: Sequence[Row]) -> Schedule:
    """Order `rows` by the first component that each overrides."""
    ablated = [number for number, row in enumerate(rows) if row.overrides]
    ablated.sort(key=lambda number: rows[number].start)
    place = [0] * len(rows)
    starts: dict[Component, tuple[int, int]] = {}
    writes: dict[Component, list[tuple[int, Value]]] = {}
    for here, number in enumerate(ablated, start=1):
        place[number] = here
        first, _ = starts.get(rows[number].start, (here, here))
        starts[rows[number].start] = (first, here + 1)
        for component, value in rows[number].overrides:
            writes.setdefault(component, []).append((here, value))
    return Schedule(
        tuple(place),
        starts,
        {
            component: Write(tuple(place for place, _ in pairs), tuple(value for _, value in pairs))
            for component, pairs in writes.items()
        },
        len(ablated) + 1,
    )
