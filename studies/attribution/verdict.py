"""Hold the declared claims against the numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from studies.claims import adjusted, p_above, p_below
from studies.damping.verdict import MOST_HELD
from studies.words import Bounds

#: The estimators of the claim, and whether the responses' share was predicted above the limit.
CLAIMED = {"atp": False, "lens": True}
_Model = Mapping[str, Any]


def judge(settings: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        models: the numbers of each model.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim, two-sided; `guarded`, the
        shares (model, estimator) that a guard forbids to use; `against`, those that lie surely on the other side;
        `secondary`, for each claim its `p`, the `adjusted` one and whether it `holds`.
    """
    limit = settings["threshold"]
    cells = {(model, estimator): wider(of, estimator) for model, of in models.items() for estimator in CLAIMED}
    guarded = [cell for cell in cells if _is_guarded(models[cell[0]], cell[1], limit)]
    against = [cell for cell, each in cells.items() if _lies(each, limit, above=not CLAIMED[cell[1]])]
    if any(cell not in guarded for cell in against):
        outcome = "refuted"
    elif not guarded and all(_lies(each, limit, above=CLAIMED[cell[1]]) for cell, each in cells.items()):
        outcome = "holds"
    else:
        outcome = "can't tell"
    p = max(_p(each, limit, above=CLAIMED[cell[1]]) for cell, each in cells.items())
    return {
        "outcome": outcome,
        "p": min(1.0, 2 * p),
        "guarded": [list(cell) for cell in guarded],
        "against": [list(cell) for cell in against],
        "secondary": adjusted(dict(_secondary(settings, models))),
    }


def wider(of: _Model, estimator: str) -> Bounds:
    """Return the responses' share with the wider of both bounds, the bootstrap's and Student's, on either side."""
    by_bootstrap, by_t = of["difference"][estimator]["pooled"]["responses"], of["difference"][estimator]["t"]
    low, high = ([each[side] for each in (by_bootstrap, by_t) if each[side] is not None] for side in (1, 2))
    return [by_bootstrap[0], min(low, default=None), max(high, default=None)]


def _lies(bounds: Bounds, limit: float, *, above: bool) -> bool:
    _, low, high = bounds
    return low is not None and high is not None and (low > limit if above else high < limit)


def _p(bounds: Bounds, limit: float, *, above: bool) -> float:
    return p_above(bounds, limit) if above else p_below(bounds, limit)


def _is_guarded(of: _Model, estimator: str, limit: float) -> bool:
    """Whether another reading puts the share on the other side of the limit."""
    share = of["difference"][estimator]["pooled"]["responses"][0]
    others = [of["own_scale"][estimator]["pooled"]["responses"][0]]
    loudest = of["loudest"][estimator].values()
    if any(each["hold"] > MOST_HELD for each in loudest):
        others += [sum(each[key] for each in loudest) / len(loudest) for key in ("without", "blocks")]
    return any((other > limit) != (share > limit) for other in others)


def _secondary(settings: Mapping[str, Any], models: Mapping[str, _Model]) -> Iterator[tuple[str, float]]:
    """Yield the name of each secondary claim, and its p."""
    limit = settings["threshold"]

    def worst(p: Callable[[_Model], float]) -> float:
        return max(p(of) for of in models.values())

    def both(reading: Mapping[str, Any]) -> float:
        return max(_p(reading[each]["pooled"]["responses"], limit, above=above) for each, above in CLAIMED.items())

    def in_sets(reading: Mapping[str, Any]) -> float:
        return max(
            _p(shares["responses"], limit, above=above)
            for each, above in CLAIMED.items()
            for shares in reading[each]["sets"].values()
        )

    yield "logit", worst(lambda of: both(of["logit"]))
    yield "every_set", worst(lambda of: in_sets(of["difference"]))
    yield "without_largest", worst(lambda of: both(of["without_largest"]))
    rest, lens = "without_largest", "difference"
    yield "given_back", worst(lambda of: p_below(of[rest]["atp"]["pooled"]["given back"], limit))
    yield "taken", worst(lambda of: p_above(of[rest]["atp"]["pooled"]["taken − given back"], 0))
    yield "lens_back", worst(lambda of: p_above(of[lens]["lens"]["pooled"]["given back"], limit))
    yield "counterfactual", worst(lambda of: p_below(of["counterfactual"]["pooled"]["responses"], limit))
    yield "mlps", worst(lambda of: p_above(of["difference"]["atp"]["pooled"]["mlp − attention"], 0))
    yield "ig", worst(lambda of: p_below(of["against_atp"]["ig"]["ratio"], 0.5))
    yield "atp_star", worst(lambda of: p_below(of["against_atp"]["atp_star"]["ratio"], 1))
    yield "gim", worst(lambda of: p_below(of["against_atp"]["gim"]["ratio"], 1))
    yield "kappa", worst(lambda of: p_above(of["kappa"]["more"], 0))
