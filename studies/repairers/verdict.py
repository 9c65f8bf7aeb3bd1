"""Hold the declared claims against the numbers."""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any

from studies.claims import adjusted, p_above_by_t, turned
from studies.words import Bounds

#: The agreement that content is claimed to lie below.
_HALF = 0.5
_Model = Mapping[str, Any]


def judge(settings: Mapping[str, Any], models: Mapping[str, _Model]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `few`, the models in which too
        few contexts have reliable profiles for the difference; `guarded`, those in which the guard of signs forbids
        that it holds; `against`, the models that refute it; `secondary`, for
        each claim its `p`, the `adjusted` one and whether it `holds`.
    """
    few = [model for model, of in models.items() if of["difference_contexts"] < settings["contexts"]["fewest"]]
    guarded = [
        model
        for model, of in models.items()
        if not above(of["readings"]["content_unsigned"]["difference"], settings["least_difference"])
    ]
    against = [model for model, of in models.items() if is_against(settings, of, few=model in few)]
    if against:
        outcome = "refuted"
    elif not few and not guarded and all(holds(settings, of) for of in models.values()):
        outcome = "holds"
    else:
        outcome = "can't tell"
    return {
        "outcome": outcome,
        "p": max(_p(settings, of) for of in models.values()),
        "few": few,
        "guarded": guarded,
        "against": against,
        "secondary": adjusted(dict(_secondary(settings, models))),
    }


def holds(settings: Mapping[str, Any], of: _Model) -> bool:
    """Return whether both lower bounds lie above the limits, for bounds of `damping` and of the `difference`."""
    return above(of["damping"], settings["threshold"]) and above(of["difference"], settings["least_difference"])


def is_against(settings: Mapping[str, Any], of: _Model, *, few: bool = False) -> bool:
    """Return whether a model refutes the claim: by too low an agreement, or by a difference that is 0 or too small.

    Args:
        settings: the study's settings.
        of: bounds of agreement for `damping` and of the `difference`.
        few: whether too few contexts have a difference.
    """
    if _below(of["damping"], settings["threshold"]):
        return True
    low = of["difference"][1]
    return not few and low is not None and (low <= 0 or _below(of["difference"], settings["least_difference"]))


def above(bounds: Bounds, limit: float) -> bool:
    """Return whether a number surely lies above a limit.

    >>> above([0.8, 0.71, 0.9], 0.7), above([0.8, 0.69, 0.9], 0.7), above([0.8, None, None], 0.7)
    (True, False, False)
    """
    return bounds[1] is not None and bounds[1] > limit


def _below(bounds: Bounds, limit: float) -> bool:
    return bounds[2] is not None and bounds[2] < limit


def _p(settings: Mapping[str, Any], of: _Model) -> float:
    """Return the larger p of both parts of the claim in one model."""
    freedom = of["difference_contexts"] - 1
    return max(
        p_above_by_t(of["damping"], settings["threshold"], freedom),
        p_above_by_t(of["difference"], settings["least_difference"], freedom),
    )


def _secondary(settings: Mapping[str, Any], models: Mapping[str, _Model]) -> Iterator[tuple[str, float]]:
    """Yield the name of each secondary claim and its p, the larger one of the models."""
    readings = {
        "spearman": ("spearman", "difference"),
        "beyond_line": ("beyond_line", "damping"),
        "beyond_ablations": ("beyond_ablations", "damping"),
        "mlps": ("mlps", "difference"),
        "other_ablations": ("other_ablations", "damping", "same_more"),
        "other_content": ("other_ablations", "content", "same_more"),
        "writes_more": ("writes_more",),
    }

    def largest(read: Callable[[_Model], Bounds], limit: float) -> float:
        return max(p_above_by_t(read(of), limit, of["difference_contexts"] - 1) for of in models.values())

    for name, keys in readings.items():
        yield name, largest(lambda of, keys=keys: reduce(getitem, keys, of["readings"]), 0)
    damping = settings["threshold"]
    yield "without_largest", largest(lambda of: of["readings"]["without_largest"]["damping"], damping)
    yield "content_below", largest(lambda of: turned(of["content"]), -_HALF)
