"""Hold the declared claims against the numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from studies.claims import adjusted, p_above
from studies.damping.cells import cells_of
from studies.damping.verdict import MOST_HELD
from studies.words import Bounds

#: The two forms of the pushed token: one token against all others, and the profile of a write along its direction.
ALONE = ("token", "profile")

#: The level of a claim in one cell alone.
_LEVEL = 0.05


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `guarded`, the cells in which a
        guard forbids a verdict; `alone`, the cells in which a form of the pushed token surely explains more;
        `secondary`, for each claim its `p`, the `adjusted` one, whether it `holds`, and the cells that it holds `in`
        when it is tested there alone.
    """
    limit = settings["threshold"]
    cells = {(model, label): of["confirmation"] for model, label, of in cells_of(settings, models)}
    guarded = [list(cell) for cell, of in cells.items() if _is_guarded(of, limit)]
    alone = [
        [*cell, form]
        for cell, of in cells.items()
        for form in ALONE
        if list(cell) not in guarded and _is_below(of["shares"]["target"][f"both − {form}"], 0)
    ]
    secondary = dict(_secondary(settings, cells))
    shares = [of["shares"]["target"]["both"] for of in cells.values()]
    if alone:
        outcome = "refuted"
    elif not guarded and all(low is not None and low > limit for _, low, _ in shares):
        outcome = "holds"
    else:
        outcome = "can't tell"
    return {
        "outcome": outcome,
        "p": max(p_above(each, limit) for each in shares),
        "guarded": guarded,
        "alone": alone,
        "secondary": {
            claim: {**of, "in": [list(cell) for cell, p in secondary[claim].items() if p <= _LEVEL]}
            for claim, of in adjusted({claim: max(each.values()) for claim, each in secondary.items()}).items()
        },
    }


def _is_guarded(of: Mapping[str, Any], limit: float) -> bool:
    """Whether another reading puts the share on the other side of the limit."""
    share, others = of["shares"]["target"]["both"][0], [of["vocabulary"]["target"]["both"][0]]
    if of["loudest"]["hold"] > MOST_HELD:
        others += [of["loudest"]["without"], of["loudest"]["blocks"]]
    return any(other is None or (other > limit) != (share > limit) for other in others)


def _is_below(bounds: Bounds, limit: float) -> bool:
    return bounds[2] is not None and bounds[2] < limit


def _secondary(
    settings: Mapping[str, Any], cells: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[str, dict[Any, float]]]:
    """Yield the name of each secondary claim, and its p in each cell."""
    limit = settings["threshold"]

    def each(p: Callable[[Mapping[str, Any]], float]) -> dict[Any, float]:
        return {cell: p(of) for cell, of in cells.items()}

    yield "another", each(lambda of: p_above(of["shares"]["others"]["both"], limit))
    yield "fifth", each(lambda of: p_above(of["shares"]["fifth"]["both"], limit))
    yield "unspecific", each(lambda of: max(p_above(of["taken"]["target"][k], 0) for k in ("more_than_half", "taken")))
    yield "follows", each(lambda of: p_above(of["taken"]["others"]["own"], 0))
    yield "beyond_push", each(lambda of: p_above(of["beyond"]["push"], 0))
    yield "beyond_writes", each(lambda of: p_above(of["beyond"]["written"], 0))
