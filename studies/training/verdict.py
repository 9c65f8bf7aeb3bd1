"""Hold the declared claims against the numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr

from studies.claims import adjusted
from studies.damping.verdict import MOST_HELD
from studies.training.estimator import SWAPS, ZEROS, falls
from studies.training.trainer import CONTROL


def judge(settings: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of the primary claim and of the secondary ones.

    Args:
        settings: the study's settings.
        found: the study's numbers.

    Returns:
        `outcome`, one of `holds`, `refuted` and `can't tell`; `p` of the primary claim; `sides`, on which side of 0
        each part surely lies, `below`, `above` or `unsure`; `guarded`, the names of the guards that forbid a verdict;
        `secondary`, for each claim whose arms were trained whether it `holds`, with its `p` and the `adjusted` one
        (Benjamini–Hochberg) where there is a p.
    """
    parts = found["parts"]
    sides = {name: side(of) for name, of in parts.items()}
    guarded = [*_guards(found)]
    if guarded:
        outcome = "can't tell"
    elif "above" in sides.values():
        outcome = "refuted"
    else:
        outcome = "holds" if set(sides.values()) == {"below"} else "can't tell"
    return {
        "outcome": outcome,
        # A part on the other side of 0 speaks against the prediction.
        "p": max(of["p"] if of["bounds"][0] < 0 else 1.0 for of in parts.values()),
        "sides": sides,
        "guarded": guarded,
        "secondary": {
            **adjusted({name: p_below(values) for name, values in _secondary(found)}),
            **{name: {"holds": holds} for name, holds in _doses(found)},
        },
    }


def side(of: Mapping[str, Any]) -> str:
    """Return whether a number surely lies `below` 0 or `above`: in all seeds and by t; or is `unsure`.

    >>> side({"seeds": [-1.0, -1.1, -0.9], "bounds": [-1.0, -1.25, -0.75]})
    'below'
    """
    _, low, high = of["bounds"]
    if max(of["seeds"]) < 0 and high < 0:
        return "below"
    return "above" if min(of["seeds"]) > 0 and low > 0 else "unsure"


def _guards(found: Mapping[str, Any]) -> Iterator[str]:
    own, loudest = found["parts"]["interaction"]["bounds"][0], found["loudest"]
    if loudest["hold"] > MOST_HELD and any(own * loudest[name] <= 0 for name in ("without", "blocks")):
        yield "heavy tails"
    if own * found["parts_at_equal_loss"]["interaction"]["bounds"][0] <= 0:
        yield "loss"


def p_below(values: Sequence[float]) -> float:
    """Return the one-sided p of the claim that a number lies below 0, by t over seeds.

    >>> round(p_below([-1.0, -2.0, -3.0]), 3)
    0.037
    """
    each = np.array(values)
    error = each.std(ddof=1) / len(each) ** 0.5
    return float(stdtr(len(each) - 1, each.mean() / error)) if error > 0 else 1.0


def _secondary(found: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each secondary claim that can be tested, and the number of each seed that lies below 0."""
    gain, effects, equal = found["gain"], found["effects"], found["equal_loss"]

    def change(name: str, arm: str) -> np.ndarray:
        return np.array(effects[name][arm]) - np.array(effects[name][CONTROL])

    claims: dict[str, tuple[str, Callable[[], Any]]] = {
        "zeros_lost": (ZEROS, lambda: change("lost, zero", ZEROS)),
        "swaps_lost": (SWAPS, lambda: change("lost, resample", SWAPS)),
        "mean": (ZEROS, lambda: np.subtract(*(gain[test][ZEROS]["seeds"] for test in ("zero", "mean")))),
        "dropout": ("dropout 0.2", lambda: gain["zero"]["dropout 0.2"]["seeds"]),
        "matched_zeros": (ZEROS, lambda: equal["zero"][ZEROS]),
        "matched_swaps": (SWAPS, lambda: equal["resample"][SWAPS]),
        "everywhere": (ZEROS, lambda: gain["zero, all positions"][ZEROS]["seeds"]),
        "damping": (ZEROS, lambda: -change("damping", ZEROS)),
        "slope": (SWAPS, lambda: -change("slope", SWAPS)),
        "natural": ("rate × 3", lambda: equal["zero"]["rate × 3"]),
    }
    for name, (arm, values) in claims.items():
        if arm in found["loss"]:
            yield name, np.asarray(values())


def _doses(found: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for name, test, kind in (("dose_zeros", "zero", "zeros"), ("dose_swaps", "resample", "swaps")):
        arms = [CONTROL, f"{kind} 0.1", f"{kind} 0.2"]
        if set(arms) <= set(found["loss"]):
            yield name, falls({arm: np.array(found["log_kl"][test][arm]) for arm in arms}, arms)
