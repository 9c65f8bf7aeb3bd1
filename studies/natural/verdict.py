"""Hold the declared claims against the numbers."""

from collections.abc import Mapping
from typing import Any

from studies.claims import adjusted, p_above, p_between, side
from studies.words import Bounds


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `secondary`, for each claim
        whether it `holds`, with its `p` and the `adjusted` one (Benjamini–Hochberg) where there is a p.
    """
    low, high = settings["range"]
    cells = models.values()

    def slopes(prompts: str, readout: str) -> list[Bounds]:
        return [of[prompts][readout]["best"]["slope"] if of[prompts][readout]["best"] else (None,) * 3 for of in cells]

    primary = slopes("passages", "logit")
    with_p = {
        "difference": max(p_between(each, low, high) for each in slopes("passages", "difference")),
        "facts_difference": max(p_between(each, low, high) for each in slopes("facts", "difference")),
        "placebo": max(_p_placebo(of["passages"]["logit"].get("placebo")) for of in cells),
    }
    counted = {
        "groups": all(_groups_agree(of["passages"]["logit"]) for of in cells),
        "below_1": all(
            of["passages"]["logit"]["attention"]["below_1"] > len(of["passages"]["logit"]["attention"]["slopes"]) / 2
            for of in cells
        ),
    }
    return {
        "outcome": _outcome(primary, low, high),
        "p": max(p_between(each, low, high) for each in primary),
        "secondary": {**adjusted(with_p), **{name: {"holds": holds} for name, holds in counted.items()}},
    }


def _outcome(slopes: list[Bounds], low: float, high: float) -> str:
    sides = {side(each, low, high) for each in slopes}
    return "refuted" if "outside" in sides else "holds" if sides == {"within"} else "can't tell"


def _p_placebo(found: Mapping[str, Any] | None) -> float:
    return max((p_above(each, 0) for each in found["less"]), default=1.0) if found else 1.0


def _groups_agree(of: Mapping[str, Any]) -> bool:
    """Whether the slopes of the groups of patches differ by less than the half-width of the whole slope."""
    if not of["groups"] or not of["best"]:
        return False
    slopes = [each[0] for each in of["groups"]]
    _, low, high = of["best"]["slope"]
    return low is not None and bool(max(slopes) - min(slopes) < (high - low) / 2)
