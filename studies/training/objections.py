"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from math import exp
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.training.estimator import SWAPS, ZEROS
from studies.training.trainer import CONTROL

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
        f"{_by_arm(entropy)}; held-out loss {_by_arm(loss)}. Where the control had the loss of zeros its KL under zero "
        f"was still {number(exp(-_mean(equal['zero'][ZEROS])), 1)} times theirs, and where it had that of swaps its KL "
        f"under resampling was {number(exp(-_mean(equal['resample'][SWAPS])), 1)} times theirs."
    )
    yield (
        "- *They write less, so that less is lost: no repair.* What zero removes from the target's logit directly, "
        f"summed over sublayers: {_by_arm(effects['removed, zero'])}; what is lost in the end: "
        f"{_by_arm(effects['lost, zero'])}. What comes back of what is removed, prompt by prompt (the slope): "
        f"{_by_arm(effects['slope'])}. KL counts what an ablation does to the whole prediction, whoever prevents it: "
        "robust is what this page shows, repair only as far as these numbers part. Lost over removed: "
        f"{_ratio(effects['lost, zero'], effects['removed, zero'])}. Kick right after the "
        f"sublayer: {_by_arm(kick['zero'], 4)}. Damping g: {_by_arm(effects['damping'])}."
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
    largest = " and ".join(
        f"{of['sublayer']} has {number(100 * of['share'], 0)}% under {_TEST[test]}"
        for test, of in each["largest"].items()
    )
    yield (
        f"- *One sublayer makes the sum.* In the control {largest}. Without it the interaction is "
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
        "weights and another order of the same text. The bounds over passages are for these three models."
    )
    yield (
        "- *The KL may be wrong.* It was computed again by plain hooks in float64, for all sublayers of one seed's "
        "control, zeros and swaps on some passages, with other patches; a test does the same for a small model."
    )


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
