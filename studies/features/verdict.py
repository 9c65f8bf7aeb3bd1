"""Hold the declared claims against the numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from studies.claims import adjusted, p_above
from studies.damping.verdict import MOST_HELD
from studies.words import Bounds


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `guarded`, the models in which
        a guard forbids a verdict; `against`, those that refute it; `secondary`, for each claim its `p`, the `adjusted`
        one and whether it `holds`.
    """
    limit = settings["threshold"]
    found = {model: difference(of) for model, of in models.items()}
    guarded = [model for model, of in models.items() if _is_guarded(of, limit)]
    against = [model for model, each in found.items() if model not in guarded and is_against(each, limit)]
    if against:
        outcome = "refuted"
    elif not guarded and all(low is not None and low > limit for _, low, _ in found.values()):
        outcome = "holds"
    else:
        outcome = "can't tell"
    return {
        "outcome": outcome,
        "p": max(p_above(each, limit) for each in found.values()),
        "guarded": guarded,
        "against": against,
        "secondary": adjusted(dict(_secondary(settings, models))),
    }


def difference(of: Mapping[str, Any]) -> Bounds:
    """Return the number that the primary claim is about: with the most blocks in between, which come last."""
    bounds: Bounds = of["difference"][-1]
    return bounds


def is_against(bounds: Bounds, limit: float) -> bool:
    """Return whether an interval refutes that a number is over a limit: it holds 0, or lies below the limit.

    >>> is_against([0.05, -0.01, 0.11], 0.1), is_against([0.05, 0.01, 0.09], 0.1), is_against([0.1, 0.05, 0.15], 0.1)
    (True, True, False)
    """
    _, low, high = bounds
    return low is not None and high is not None and (low <= 0 or high < limit)


def _is_guarded(of: Mapping[str, Any], limit: float) -> bool:
    """Whether another reading puts the difference on the other side of the limit."""
    loud, told = of["loudest"], difference(of)[0]
    if loud["hold"] <= MOST_HELD:
        return False
    return any(each is None or (each > limit) != (told > limit) for each in (loud["without"], loud["blocks"]))


def _secondary(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the name and the p of each secondary claim, the larger one of the models."""
    for name in settings["secondary"]:
        yield name, max(p_above(of["over"][name], 0) for of in models.values())
