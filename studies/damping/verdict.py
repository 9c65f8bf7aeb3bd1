"""Hold the declared claims against the numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from studies.claims import adjusted, p_above, p_below, p_between

#: The limits between which two slopes count as equal.
EQUAL = (0.8, 1.2)
#: A response is two-sided if less than this share of its energy is one-sided.
HALF = 0.5
#: The largest share of |removed| that 5% of the prompts may hold without a second look.
MOST_HELD = 1 / 3


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `guarded`, the cells in which a
        guard forbids a verdict; `largest`, the cell with the largest share; `secondary`, for each claim its `p`, the
        `adjusted` one (Benjamini–Hochberg) and whether it `holds`.
    """
    limit = settings["threshold"]
    cells = {cell: models[cell[0]]["sets"][cell[1]] for cell in _cells(settings)}
    primary = {cell: of["confirmation"]["difference"] for cell, of in cells.items()}
    if not all(primary.values()):
        return {"outcome": "can't tell", "p": 1.0, "guarded": [], "largest": None, "secondary": {}}
    guarded = [cell for cell, of in primary.items() if _is_guarded(of, limit)]
    found = {cell: of["own"]["share"] for cell, of in primary.items()}
    if any(low is not None and low > limit for cell, (_, low, _) in found.items() if cell not in guarded):
        outcome = "refuted"
    elif not guarded and all(high is not None and high < limit for _, _, high in found.values()):
        outcome = "holds"
    else:
        outcome = "can't tell"
    return {
        "outcome": outcome,
        "p": max(p_below(bounds, limit) for bounds in found.values()),
        "guarded": [list(cell) for cell in guarded],
        "largest": list(max(found, key=lambda cell: found[cell][0])),
        "secondary": adjusted(dict(_secondary(settings, models, cells))),
    }


def _cells(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(model, label) for model in settings["models"] for label in settings["prompts"]]


def _is_guarded(of: Mapping[str, Any], limit: float) -> bool:
    """Whether another reading puts the share of content on the other side of the limit."""
    share, others = of["own"]["share"][0], [of["clean"]["share"][0]]
    if of["loudest"]["hold"] > MOST_HELD:
        others += [of["loudest"]["without"], of["loudest"]["blocks"]]
    return any(other is None or (other > limit) != (share > limit) for other in others)


def _secondary(
    settings: Mapping[str, Any], models: Mapping[str, Any], cells: Mapping[Any, Any]
) -> Iterator[tuple[str, float]]:
    """Yield the name and the p of each secondary claim."""
    limit = settings["threshold"]
    halves = [of["confirmation"] for of in cells.values()]
    yield "boost", max(p_between(of["difference"]["own"]["boost_ratio"], *EQUAL) for of in halves)
    yield "two_sided", max(p_below(of["difference"]["own"]["one_sided"], HALF) for of in halves)
    yield "logit", max(p_below(of["logit"]["own"]["share"], limit) if of["logit"] else 1.0 for of in halves)
    yield "clean_scale", max(p_below(of["difference"]["clean"]["share"], limit) for of in halves)
    wrong = [of["wrong_content"]["ratio"] for of in cells.values() if "wrong_content" in of]
    yield "wrong_content", max([p_between(each, *EQUAL) for each in wrong], default=1.0)
    pushes = [models[model]["sets"][settings["pushes"]["set"]].get("pushes", {}) for model in settings["models"]]
    steps = [bounds for each in pushes for name, bounds in each.items() if " − " in name]
    yield "graded", max([p_above(each, 0) for each in steps], default=1.0)
