"""Answer three questions on a kind of component: in how many is an ablation made up for?

- *compensation*: the slope of CE on DE over prompts (Eq. 33, 34; Figure 7), the paper's claim;
- *prompt by prompt*: the slope of total − direct on −direct over prompts;
- *on average*: 1 − mean lost / mean removed.

They are asked of the components that surely write for the readout, with bounds that hold for all components at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from hydrascope.measures.bootstrap import Bootstrap, Statistic, simultaneous
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import strength, with_direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import ComponentKind, of_kind
from hydrascope.measures.regression import least_squares
from hydrascope.measures.restoration import outcome

#: The three questions of a verdict.
Question = Literal["compensation", "prompt by prompt", "on average"]
Answer = Literal["yes", "no", "can't tell"]

#: A share that is surely below this one is as good as none.
NEGLIGIBLE = 0.05
#: A slope or share up to this one is rounding of what is exactly 0.
ROUNDING = 1e-3

#: At the number of prompts that is named, an estimate must exceed its half-width by this factor. At a factor of 1 only
#: a third of all runs would tell: small samples that name a small number overestimate.
_MARGIN = 1.5
#: At the number of prompts where a bound is 0, rounding must not decide.
_JUST_PAST = 1 - 1e-9
#: Numbers of prompts above this one are not named.
_MOST_PROMPTS = 1_000_000


@dataclass(frozen=True)
class ComponentAnswer:
    """The answer to one question on one ablated component.

    Attributes:
        ablated: the component's label.
        answer: `yes` if the number is surely above 0, `no` if it is surely below `NEGLIGIBLE`, else `can't tell`.
        estimate: the slope or share.
        low, high: bounds that hold for all components of the kind at once; NaN where the number is unknown.
        asked: whether the component surely writes for the readout.
    """

    ablated: str
    answer: Answer
    estimate: float
    low: float
    high: float
    asked: bool


@dataclass(frozen=True)
class Answered:
    """The answer to one question on one kind of component.

    Attributes:
        question: the question.
        answer: `yes` if more than half of the components have an estimate surely above 0, `no` if surely fewer than
            half can, else `can't tell`.
        above: the number of components with an estimate surely above 0.
        possible: the number of components whose estimate may be above 0.
        overshoot: the number of components with an estimate surely above 1.
        asked: the number of components that surely write for the readout.
        prompts_needed: the number of prompts that would tell, at the spread seen; 0 if the answer is known or no
            number up to a million would.
        each: the answer for every component of the kind.
    """

    question: Question
    answer: Answer
    above: int
    possible: int
    overshoot: int
    asked: int
    prompts_needed: int
    each: tuple[ComponentAnswer, ...] = ()


@takes_effects
def three_answers(effects: Effects, kind: ComponentKind, bootstrap: Bootstrap) -> tuple[Answered, ...]:
    """Return the answers to the three questions on one kind of component.

    >>> answers = hs.measures.three_answers(effects, "attn", hs.measures.Bootstrap(resamples=200))
    >>> [each.question for each in answers]
    ['compensation', 'prompt by prompt', 'on average']

    Args:
        effects: on one readout.
        kind: the kind of the ablated components; those with nothing downstream don't count.
        bootstrap: how the bounds are drawn; they hold for all components of the kind at once.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    read = with_direct_effect(chosen)
    return (
        _answered("compensation", read, bootstrap, *_compensation(read)),
        _answered("prompt by prompt", chosen, bootstrap, *_slopes(chosen)),
        _answered("on average", chosen, bootstrap, *_shares(chosen)),
    )


def answer_of(low: float, high: float) -> Answer:
    """Return the answer for one component from the bounds of its slope or share.

    >>> answer_of(0.2, 0.4), answer_of(-0.1, 0.4), answer_of(-0.1, 0.04), answer_of(3e-6, 5e-6)
    ('yes', "can't tell", 'no', 'no')
    """
    if low > ROUNDING:
        return "yes"
    return "no" if high < NEGLIGIBLE else "can't tell"


def _compensation(effects: Effects) -> tuple[Statistic, xr.Dataset]:
    return least_squares(effects["contribution"], compensation(effects)["compensation"])


def _slopes(effects: Effects) -> tuple[Statistic, xr.Dataset]:
    samples = outcome(effects)
    return least_squares(samples["removed"], samples["restored"])


def _shares(effects: Effects) -> tuple[Statistic, xr.Dataset]:
    def ratio(means: xr.Dataset) -> xr.Dataset:
        return (means["restored"] / means["removed"].where(means["removed"] != 0)).to_dataset(name="slope")

    return ratio, outcome(effects)


def _answered(
    question: Question, effects: Effects, bootstrap: Bootstrap, statistic: Statistic, samples: xr.Dataset
) -> Answered:
    """Count the components, and tell how many prompts would give an answer."""
    written = _bounds(lambda means: means, strength(effects).to_dataset(name="written"), bootstrap)["written"]
    found = _bounds(lambda means: statistic(means)[["slope"]], samples, bootstrap)["slope"]
    prompts, known = effects.sizes["prompt"], xr.full_like(found, 1.0)
    if question == "on average":
        # A ratio to an amount that may be nothing is unknown.
        known = _bounds(lambda means: means, samples[["removed"]], bootstrap)["removed"]
    estimates = _Estimates(*_parts(written), *_parts(known), *_parts(found))
    asked, above, possible = estimates.counts(1.0)
    answer = _answer(asked, above, possible)
    return Answered(
        question,
        answer,
        above,
        possible,
        estimates.overshoot(),
        asked,
        estimates.prompts_needed(prompts) if answer == "can't tell" else 0,
        tuple(_each(estimates, known, found)),
    )


def _each(estimates: "_Estimates", known: xr.DataArray, found: xr.DataArray) -> Iterator[ComponentAnswer]:
    """Yield the answer for every component; a ratio to an amount that may be 0 has no bounds."""
    bounded = found.where(known.sel(bound="low", drop=True) > 0)
    bounds = bounded.transpose("ablated", "bound").sel(bound=["low", "high"]).values
    rows = zip(found["ablated"].values, found.sel(bound="estimate").values, bounds, estimates.writers(1.0), strict=True)
    for ablated, estimate, (low, high), asked in rows:
        low, high = _number(low), _number(high)
        yield ComponentAnswer(str(ablated), answer_of(low, high), _number(estimate), low, high, bool(asked))


def _number(value: float) -> float:
    """Return a float; every NaN is the same object, so that equal answers compare equal."""
    return math.nan if np.isnan(value) else float(value)


def _bounds(statistic: Statistic, samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    return simultaneous(statistic, samples, bootstrap, "ablated")


def _parts(bounds: xr.DataArray) -> tuple[Float[np.ndarray, "ablated"], Float[np.ndarray, "ablated"]]:
    """Return the estimates, and the half-widths of their bounds."""
    estimate, low, high = bounds.transpose("bound", "ablated").values
    return estimate, (high - low) / 2


def _answer(asked: int, above: int, possible: int) -> Answer:
    if above > asked / 2:
        return "yes"
    return "no" if possible < asked / 2 else "can't tell"


@dataclass(frozen=True)
class _Estimates:
    """Estimates of all components, with the half-widths of their bounds.

    The widths shrink with more prompts.

    Attributes:
        written, written_width: the mean that each component writes for the readout.
        known, known_width: an amount that must surely be above 0, else the quantity is unknown.
        slope, slope_width: the quantity that the question is about.
    """

    written: Float[np.ndarray, "ablated"]
    written_width: Float[np.ndarray, "ablated"]
    known: Float[np.ndarray, "ablated"]
    known_width: Float[np.ndarray, "ablated"]
    slope: Float[np.ndarray, "ablated"]
    slope_width: Float[np.ndarray, "ablated"]

    def writers(self, shrunk: float) -> Bool[np.ndarray, "ablated"]:
        """Return which components surely write for the readout if widths are multiplied by `shrunk`."""
        return self.written - shrunk * self.written_width > 0

    def counts(self, shrunk: float) -> tuple[int, int, int]:
        """Return the numbers of components that are asked, surely above 0, and possibly above 0."""
        asked, known = self.writers(shrunk), self.known - shrunk * self.known_width > 0
        above = known & (self.slope - shrunk * self.slope_width > ROUNDING)
        below = known & (self.slope + shrunk * self.slope_width < ROUNDING)
        return int(asked.sum()), int((asked & above).sum()), int((asked & ~below).sum())

    def overshoot(self) -> int:
        """Return the number of components that are asked and surely above 1."""
        asked = self.writers(1.0) & (self.known - self.known_width > 0)
        return int((asked & (self.slope - self.slope_width > 1)).sum())

    def prompts_needed(self, prompts: int) -> int:
        """Return the number of prompts from which on the answer would be known; 0 if none is found."""
        pairs = (
            (self.written, self.written_width),
            (self.known, self.known_width),
            (self.slope - ROUNDING, self.slope_width),
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            changes = np.concatenate([(_MARGIN * width / estimate) ** 2 for estimate, width in pairs])
        # With the margin fewer components surely write than now: an answer on fewer would not last.
        asked_now, _, _ = self.counts(1.0)
        # The answer changes only where a bound passes 0, or a slope's bound what is rounding.
        for factor in np.sort(changes[np.isfinite(changes) & (changes > 1)]):
            needed = int(np.ceil(prompts * factor))
            if needed > _MOST_PROMPTS:
                return 0
            asked, above, possible = self.counts((prompts / needed) ** 0.5 * _MARGIN * _JUST_PAST)
            if asked >= asked_now and _answer(asked, above, possible) != "can't tell":
                return _rounded(needed)
        return 0


def _rounded(number: int) -> int:
    """Round a number up to two digits."""
    step = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // step) * step
