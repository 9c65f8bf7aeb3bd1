"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from math import exp
from typing import Any

import numpy as np

from hydrascope.reports.summary.interval import number
from studies.training.estimator import SWAPS, ZEROS, over_seeds
from studies.training.trainer import CONTROL
from studies.words import interval

_TEST = {"zero": "zero", "resample": "resampling"}
#: Half as many swaps.
HALF = "swaps 0.1"
#: The test that is like what an arm met in training.
_MET = {ZEROS: "zero", HALF: "resample", SWAPS: "resample"}


def objections(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        results: the study's results.
    """
    loss, entropy, effects, gain = results["loss"], results["entropy"], results["effects"], results["gain"]
    equal, kick = results["equal_loss"], results["kick"]
    yield (
        "- *Failures make a model unsure, and an unsure model has less to lose.* Means over seeds: entropy "
        f"{_by_arm(entropy)}; held-out loss {_by_arm(loss)}. Where the control had the loss nearest to that of zeros, "
        f"before its rate had fallen, its KL under zero was still {number(exp(-_mean(equal['zero'][ZEROS])), 1)} times "
        "theirs, and where it had that of swaps its KL under resampling was "
        f"{number(exp(-_mean(equal['resample'][SWAPS])), 1)} times theirs."
    )
    yield (
        "- *They write less, so that less is lost: no repair.* What zero removes from the target's logit directly, "
        f"summed over sublayers: {_by_arm(effects['removed, zero'])}; what is lost in the end: "
        f"{_by_arm(effects['lost, zero'])}. What comes back of what is removed, prompt by prompt (the slope): "
        f"{_by_arm(effects['slope'])}. KL counts what an ablation does to the whole prediction, whoever prevents it: "
        "robust is what this page shows. Whether it is repair isn't settled; looked at afterwards, zeros change "
        f"damping by {_moved(effects['damping'], ZEROS)}, the slope by {_moved(effects['slope'], ZEROS)}, content "
        f"repair by {_moved(effects['content'], ZEROS)}; swaps damping by {_moved(effects['damping'], SWAPS)}, the "
        f"slope by {_moved(effects['slope'], SWAPS)}. A slope ignores what is lost alike in all passages. Lost over "
        f"removed, sums that cancel: under zero {_ratio(effects['lost, zero'], effects['removed, zero'])}; under "
        f"resampling {_ratio(effects['lost, resample'], effects['removed, resample'])}. Kick right after the sublayer "
        f"(median over sublayers, so that {largest(results['each'])} hardly counts in it): {_by_arm(kick['zero'], 4)}."
    )
    yield (
        "- *An interaction of logs may be another one in nats.* In nats it is "
        f"{_each(_interaction_in_nats(results))} in the three seeds."
    )
    if HALF in gain["zero"]:
        doses = {arm: _mean(kick[test][CONTROL]) * float(arm.split()[1]) for arm, test in _MET.items()}
        yield (
            "- *A share isn't a dose: a swap disturbs more than a zero.* Share times kick is "
            f"{'; '.join(f'{number(dose, 4)} for {arm}' for arm, dose in doses.items())}. With swaps of 0.1 "
            f"in place of 0.2 the interaction is {_each(_interaction(gain, HALF))}. And each arm is compared "
            "with itself under two tests: what helps under both alike makes no interaction."
        )
    each = results["each"]
    made = " and ".join(
        f"{of['sublayer']} has {number(100 * of['share'], 0)}% under {_TEST[test]}"
        for test, of in each["largest"].items()
    )
    yield (
        f"- *One sublayer makes the sum.* In the control {made}. Without it the interaction is "
        f"{_each(each['without_largest']['interaction']['seeds'])}; where every sublayer counts alike, by the mean of "
        f"their log KL, it is {_each(each['alike']['interaction']['seeds'])}."
    )
    yield (
        "- *Train and test are the same thing.* Nearly: an arm meets what it is tested with, at any place and several "
        "sublayers at a time, while the test takes one sublayer at the last token. That is the question: robustness "
        "comes with the failures that a model has met. Whether large models ever meet any isn't answered."
    )
    yield (
        "- *Three seeds are few, and share a corpus.* The bounds are by t on 2 degrees of freedom, and hold for other "
        "weights and other draws from the same text. The bounds over passages are for these three models."
    )
    yield ("- *The KL may be wrong.* A test compares it with plain hooks in float64 for a small model.")
    yield (
        "- *The guard of equal loss can't fire.* It hardly can: in the interaction the control cancels, so that the "
        "guard sees only how the control's own ratio of the two tests changes on its way. It doesn't match zeros with "
        "swaps."
    )


def _moved(values: Mapping[str, list[float]], arm: str) -> str:
    return interval(by_t(differences(values[arm], values[CONTROL])))


def largest(each: Mapping[str, Any]) -> str:
    """Return the sublayers with most of the control's KL in any test."""
    return " and ".join(dict.fromkeys(of["sublayer"] for of in each["largest"].values()))


def differences(above: list[float], below: list[float]) -> list[float]:
    """Return the differences of two numbers in each seed."""
    return [one - other for one, other in zip(above, below, strict=True)]


def by_t(values: list[float]) -> list[float]:
    """Return the mean over seeds, and its bounds by t."""
    return over_seeds(np.array(values))[0]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _by_arm(values: Mapping[str, list[float]], digits: int = 2) -> str:
    return ", ".join(f"{arm.split()[0]} {number(_mean(values[arm]), digits)}" for arm in (CONTROL, ZEROS, SWAPS))


def _ratio(above: Mapping[str, list[float]], below: Mapping[str, list[float]]) -> str:
    return _by_arm({arm: [_mean(above[arm]) / _mean(below[arm])] for arm in above})


def _each(values: list[float]) -> str:
    return ", ".join(number(value, 2) for value in values)


def _interaction(gain: Mapping[str, Any], swaps: str) -> list[float]:
    """Return the interaction of each seed, with another arm of swaps."""
    zero, resample = gain["zero"], gain["resample"]
    return [
        zero[ZEROS]["seeds"][seed] - resample[ZEROS]["seeds"][seed] - zero[swaps]["seeds"][seed] + own
        for seed, own in enumerate(resample[swaps]["seeds"])
    ]


def _interaction_in_nats(results: Mapping[str, Any]) -> list[float]:
    sums = {
        test: {arm: [exp(each) for each in values] for arm, values in of.items()}
        for test, of in results["log_kl"].items()
    }

    def change(arm: str, test: str, seed: int) -> float:
        return sums[test][arm][seed] - sums[test][CONTROL][seed]

    return [
        change(ZEROS, "zero", seed)
        - change(ZEROS, "resample", seed)
        - change(SWAPS, "zero", seed)
        + change(SWAPS, "resample", seed)
        for seed in range(len(sums["zero"][CONTROL]))
    ]
