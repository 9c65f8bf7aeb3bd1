"""Hold the declared claims against the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studies.claims import adjusted, p_below, p_between, side
from studies.damping.verdict import MOST_HELD
from studies.words import Bounds


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `guarded`, the models in which
        a guard forbids a verdict; `sides`, for each model whether the interval lies `within` the limits, `outside` or
        is `unsure`; `secondary`, for each claim its `p`, the `adjusted` one and whether it `holds`.
    """
    limit = settings["threshold"]
    primary = {model: of["primary"]["difference"] for model, of in models.items()}
    guarded = [model for model, of in primary.items() if _is_guarded(of, limit)]
    sides = {model: side(of["change"], -limit, limit) for model, of in primary.items()}
    if any(each == "outside" for model, each in sides.items() if model not in guarded):
        outcome = "refuted"
    elif not guarded and {*sides.values()} == {"within"}:
        outcome = "holds"
    else:
        outcome = "can't tell"
    return {
        "outcome": outcome,
        "p": max(p_between(of["change"], -limit, limit) for of in primary.values()),
        "guarded": guarded,
        "sides": sides,
        "secondary": adjusted(
            {claim: max(ps) for claim, ps in _secondary(limit, [*models.values()])}  # of both models the larger
        ),
    }


def _is_guarded(of: Mapping[str, Any], limit: float) -> bool:
    """Whether another reading lies on the other side of a limit."""
    others = [of["clean"][0]]
    if of["loudest"]["hold"] > MOST_HELD:
        others += [of["loudest"]["without"], of["loudest"]["blocks"]]
    return any(other is None or _place(other, limit) != _place(of["change"][0], limit) for other in others)


def _place(value: float, limit: float) -> int:
    """Return −1 below both limits, 0 between them, 1 above."""
    return int(value > limit) - int(value < -limit)


def _secondary(limit: float, models: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """Yield the name of each secondary claim, and its p in each model."""

    def equal(found: Sequence[Bounds]) -> list[float]:
        return [p_between(each, -limit, limit) for each in found]

    def contrast(name: str, quantity: str) -> list[Bounds]:
        # Studies of other cells may not have it.
        return [of["cells"]["contrasts"].get(name, {}).get(quantity, (None,) * 3) for of in models]

    yield "logit", equal([of["primary"]["logit"]["change"] for of in models])
    yield "true", equal(contrast("true.512 − true.8", "damping"))
    yield "lengths", equal([
        *contrast("other.32 − other.8", "damping"),
        *contrast("other.128 − other.8", "damping"),
    ])  # fmt: skip
    yield "one", equal(contrast("newline.1 − other.8", "damping"))
    yield "content_true", [p_below(each, 0) for each in contrast("true.512 − true.8", "lost")]
    yield "content_confidence", [p_below(of["cells"]["confidence"], 0) for of in models]
    yield "content_size", [p_below(each, 0) for each in contrast("other.512 − other.8", "size")]
