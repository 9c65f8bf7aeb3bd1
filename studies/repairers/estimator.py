"""The agreement of contexts on who reacts to an ablation, corrected for noise in the profiles.

A profile holds the reaction of each head downstream of an ablated sublayer, in the mean over the units of a context:
prompts, or templates. Two profiles correlate less than the truths do, since both are noisy. How noisy a profile is
follows from the correlation of its halves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, stdtrit
from scipy.stats import rankdata

#: Units of each context, `[unit, ablated, reactor]`; NaN where a component isn't downstream.
Units = Sequence[np.ndarray]
Transform = Callable[[np.ndarray], np.ndarray]


def as_they_are(profiles: np.ndarray) -> np.ndarray:
    """Return profiles unchanged."""
    return profiles


@dataclass(frozen=True)
class Draws:
    """Weights of units and contexts, first as they are, then resampled.

    Attributes:
        halvings: for each context, weights `[2, halving, unit]` of the means over two random halves of its units.
        resampled: for each context, weights `[2, draw, unit]`: in each draw a random halving, and units drawn within
            the halves.
        contexts: how often each context is drawn, `[draw, context]`.
    """

    halvings: list[np.ndarray]
    resampled: list[np.ndarray]
    contexts: np.ndarray

    @classmethod
    def of(cls, units: Sequence[int], halvings: int, resamples: int, seed: int) -> "Draws":
        """Draw weights.

        Args:
            units: the number of units of each context.
            halvings: the number of random halvings.
            resamples: the number of resamples.
            seed: the seed of all draws.
        """
        random = np.random.default_rng(seed)
        halves, resampled = [], []
        for count in units:
            orders = np.argsort(random.random((halvings, count)), 1)
            parts = orders[:, : count // 2], orders[:, count // 2 :]
            halves.append(np.stack([_weights(part, count) for part in parts]))
            taken = random.integers(halvings, size=resamples)
            drawn = [
                np.take_along_axis(part[taken], random.integers(part.shape[1], size=(resamples, part.shape[1])), 1)
                for part in parts
            ]
            resampled.append(np.stack([_weights(each, count) for each in drawn]))
        contexts = _weights(random.integers(len(units), size=(resamples, len(units))), len(units)) * len(units)
        return cls(halves, resampled, contexts)


def _weights(drawn: np.ndarray, count: int) -> Float[np.ndarray, "draw unit"]:
    """Return the weight of each unit in the mean over those that were drawn, `[draw, taken]`."""
    offset = np.arange(len(drawn))[:, None] * count
    found = np.bincount((drawn + offset).ravel(), minlength=len(drawn) * count).reshape(len(drawn), count)
    return found / drawn.shape[1]


@dataclass(frozen=True)
class Agreement:
    """The agreement of every two contexts.

    Attributes:
        raw, disattenuated: correlations of profiles `[ablated, context, context]`, and the same corrected for noise.
        reliability: of each profile, `[ablated, context]`.
        kept: whether a profile is reliable enough, `[ablated, context]`.
        resampled: corrected correlations of resampled units, `[draw, ablated, context, context]`.
    """

    raw: np.ndarray
    disattenuated: np.ndarray
    reliability: np.ndarray
    kept: np.ndarray
    resampled: np.ndarray

    @property
    def cells(self) -> Bool[np.ndarray, "ablated context context"]:
        """Whether a pair of contexts counts: both are kept, and the first comes before the second."""
        both = self.kept[:, :, None] & self.kept[:, None]
        return both & np.triu(np.ones(both.shape[1:], bool), 1)


def agree(units: Units, draws: Draws, least: float, transform: Transform = as_they_are) -> Agreement:
    """Return the agreement of contexts on profiles.

    The reliability of a profile is 2r/(1 + r), r the mean correlation of its halves over random halvings (Spearman and
    Brown). The agreement is r / √(reliability · reliability′).

    Args:
        units: for each context, `[unit, ablated, reactor]`; NaN where a component isn't downstream.
        draws: weights of units.
        least: the least reliability of a profile that is kept.
        transform: a function of profiles `[…, reactor]`, such as their ranks.
    """
    whole = np.stack([each.mean(0) for each in units])
    halved = zip(units, draws.halvings, strict=True)
    reliability = np.stack([_reliability(each, halves, transform) for each, halves in halved], 1)
    raw = _between(transform(whole))
    first, second = (
        np.stack([_means(weights[side], each) for weights, each in zip(draws.resampled, units, strict=True)], 1)
        for side in (0, 1)
    )
    sizes = np.array([_share(len(each)) for each in units])[:, None, None]
    profiles = _between(transform(sizes * first + (1 - sizes) * second))
    half = correlations(transform(first), transform(second)).swapaxes(1, 2)
    # A half of a draw may correlate with the other hardly at all, and must not be divided by.
    again = np.maximum(step_up(half), least / 2)
    return Agreement(
        raw,
        raw / _roots(np.maximum(reliability, 1e-6)),
        reliability,
        reliability >= least,
        profiles / _roots(again),
    )


def _means(weights: Float[np.ndarray, "draw unit"], units: np.ndarray) -> Float[np.ndarray, "draw ablated reactor"]:
    return np.tensordot(weights, units, 1)


def _share(count: int) -> float:
    """Return the share of the units in the first half."""
    return (count // 2) / count


def step_up(half: np.ndarray) -> np.ndarray:
    """Return the reliability of a whole from the correlation of its halves (Spearman and Brown).

    >>> float(step_up(np.array(0.5))).__round__(3)
    0.667
    """
    return 2 * half / (1 + half)


def _reliability(units: np.ndarray, halves: np.ndarray, transform: Transform) -> Float[np.ndarray, "ablated"]:
    first, second = (transform(_means(side, units)) for side in halves)
    return np.asarray(step_up(correlations(first, second).mean(0)))


def _unit(profiles: Float[np.ndarray, "... reactor"]) -> Float[np.ndarray, "... reactor"]:
    """Return profiles less their mean over reactors, of length 1; 0 where a component isn't downstream."""
    centred = np.nan_to_num(profiles - np.nanmean(profiles, -1, keepdims=True))
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return centred / np.where(length > 0, length, 1)


def correlations(
    first: Float[np.ndarray, "... reactor"], second: Float[np.ndarray, "... reactor"]
) -> Float[np.ndarray, "..."]:
    """Return Pearson's correlation of profiles over the reactors that are downstream."""
    return np.asarray((_unit(first) * _unit(second)).sum(-1))


def _between(
    profiles: Float[np.ndarray, "... context ablated reactor"],
) -> Float[np.ndarray, "... ablated context context"]:
    unit = _unit(profiles).swapaxes(-3, -2)
    return unit @ unit.swapaxes(-2, -1)


def _roots(reliability: Float[np.ndarray, "... context"]) -> Float[np.ndarray, "... context context"]:
    return np.sqrt(reliability[..., :, None] * reliability[..., None, :])


def ranks(profiles: Float[np.ndarray, "... reactor"]) -> Float[np.ndarray, "... reactor"]:
    """Return the ranks of the reactors of each profile; NaN stays."""
    return np.asarray(rankdata(profiles, axis=-1, nan_policy="omit"))


def mean_over(values: np.ndarray, cells: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Return the mean over ablations and pairs of contexts.

    Args:
        values: `[…, ablated, context, context]`.
        cells: which of them count, `[ablated, context, context]`.
        contexts: the weight of each context, `[…, context]`.
    """
    weights = contexts[..., None, :, None] * contexts[..., None, None, :] * cells
    axes = (-3, -2, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((values * weights).sum(axes) / weights.sum(axes))


@dataclass(frozen=True)
class Estimate:
    """A number with what is needed for its bounds.

    Attributes:
        value: the number.
        without: the number without each context in turn, `[context]`.
        resampled: the number in each draw of contexts and units; NaN where a draw has no two contexts.
    """

    value: float
    without: np.ndarray
    resampled: np.ndarray

    @classmethod
    def of(cls, agreement: Agreement, draws: Draws, cells: np.ndarray | None = None) -> "Estimate":
        """Return the mean agreement over ablations and pairs of contexts; by default of all pairs that count."""
        cells = agreement.cells if cells is None else cells
        count = agreement.kept.shape[1]
        each = 1 - np.eye(count)
        return cls(
            float(mean_over(agreement.disattenuated, cells, np.ones(count))),
            mean_over(agreement.disattenuated, cells, each),
            mean_over(agreement.resampled, cells, draws.contexts),
        )

    @classmethod
    def pooled(cls, agreement: Agreement) -> "Estimate":
        """Return the mean correlation over the mean root of reliabilities, over all pairs, reliable or not."""
        count = agreement.kept.shape[1]
        cells = np.broadcast_to(np.triu(np.ones((count, count), bool), 1), agreement.raw.shape)
        roots = _roots(agreement.reliability.clip(0))
        every, each = np.ones(count), 1 - np.eye(count)
        with np.errstate(invalid="ignore", divide="ignore"):
            value, without = (
                mean_over(agreement.raw, cells, weights) / mean_over(roots, cells, weights) for weights in (every, each)
            )
        # Where no profile is reliable at all, there is no number.
        value, without = (np.where(np.isfinite(each), each, np.nan) for each in (value, without))
        return cls(float(value), without, np.full(1, np.nan))

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.without - other.without, self.resampled - other.resampled)

    def errors(self) -> tuple[float, float]:
        """Return the standard error by the jackknife over contexts, and that by resampling."""
        without = self.without[np.isfinite(self.without)]
        count = len(without)
        jackknife = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()) if count > 1 else np.nan
        drawn = self.resampled[np.isfinite(self.resampled)]
        return float(jackknife), float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0

    def bounds(self, contexts: int, confidence: float) -> list[float]:
        """Return the number with a t interval of the larger standard error.

        Args:
            contexts: the number of contexts, one more than the degrees of freedom.
            confidence: the confidence level.
        """
        half = -stdtrit(contexts - 1, (1 - confidence) / 2) * max(self.errors())
        return [self.value, self.value - half, self.value + half]


#: The least correlation of halves over the reactors that two ablations share.
_LEAST_HALF = 0.1


def between_ablations(units: Units, draws: Draws, kept: np.ndarray) -> Float[np.ndarray, "context"]:
    """Return the agreement of different ablations in one context, each context's mean over pairs of ablations.

    Two ablations of the same prompts share noise, so one is taken from one half and the other from the other half, over
    the reactors downstream of both.

    Args:
        units: as for `agree`.
        draws: weights of units.
        kept: whether a profile is reliable enough, `[ablated, context]`.
    """
    each = zip(units, draws.halvings, kept.T, strict=True)
    return np.array([_of_context(some, halves, reliable) for some, halves, reliable in each])


def _of_context(units: np.ndarray, halves: np.ndarray, kept: np.ndarray) -> float:
    first, second = (_means(side, units) for side in halves)
    found = []
    places = np.flatnonzero(kept)
    for place, one in enumerate(places):
        for other in places[place + 1 :]:
            both = ~np.isnan(units[0, one] + units[0, other])
            a, b, c, d = (_unit(side[:, k][..., both]) for k in (one, other) for side in (first, second))
            own = ((a * b).sum(-1).mean(), (c * d).sum(-1).mean())
            if min(own) > _LEAST_HALF:
                crossed = ((a * d).sum(-1).mean() + (b * c).sum(-1).mean()) / 2
                found.append(crossed / np.sqrt(own[0] * own[1]))
    return float(np.mean(found)) if found else float("nan")


def beyond_line(units: Units, writes: Units) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return reactions less what a line on the clean direct effects predicts, with its slopes and correlations.

    The line is fitted over the reactors of each context and ablation, to means over units.

    Args:
        units: reactions, for each context `[unit, ablated, reactor]`.
        writes: clean direct effects of the reactors, `[unit, ablated, reactor]`.

    Returns:
        what is left of each unit's reactions; slopes and correlations, `[context, ablated]`.
    """
    left, slopes, correlations = [], [], []
    for reactions, direct in zip(units, writes, strict=True):
        y, x = (each.mean(0) - np.nanmean(each.mean(0), -1, keepdims=True) for each in (reactions, direct))
        slope = np.nansum(x * y, -1) / np.nansum(x * x, -1)
        left.append(reactions - slope[:, None] * direct)
        slopes.append(slope)
        correlations.append(np.nansum(x * y, -1) / np.sqrt(np.nansum(x * x, -1) * np.nansum(y * y, -1)))
    return left, np.array(slopes), np.array(correlations)


def beyond_ablations(units: Units) -> list[np.ndarray]:
    """Return reactions less their mean over all ablations of the same context, over what is downstream of all."""
    found = []
    for each in units:
        shared = np.where(np.isnan(each).any(1, keepdims=True), np.nan, each)
        found.append(shared - shared.mean(1, keepdims=True))
    return found


def without_largest(units: Units, count: int) -> list[np.ndarray]:
    """Return reactions without the reactors with the largest |mean| over contexts to each ablation."""
    size = np.mean([abs(each.mean(0)) / np.nansum(abs(each.mean(0)), -1, keepdims=True) for each in units], 0)
    largest = np.argsort(-np.nan_to_num(size), -1)[:, :count]
    out = np.zeros(size.shape, bool)
    np.put_along_axis(out, largest, True, -1)
    return [np.where(out, np.nan, each) for each in units]


def in_units(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return means over the prompts of each unit, in the order of names.

    >>> in_units(np.array([1.0, 2.0, 6.0]), ["b", "a", "a"])
    array([4., 1.])
    """
    labels = np.asarray(names)
    return np.stack([values[labels == name].mean(0) for name in np.unique(labels)])


def apart(units: Units) -> list[np.ndarray]:
    """Return for each unit what the mean over the other contexts doesn't foretell, `[unit, ablated, reactor]`.

    The other contexts' mean profile is scaled to fit the context's own, so that a context in which more is removed
    isn't one with other repairers.
    """
    means = np.stack([each.mean(0) for each in units])
    found = []
    for place, each in enumerate(units):
        others = np.delete(means, place, 0).mean(0)
        factor = np.nansum(others * means[place], -1) / np.nansum(others**2, -1)
        found.append(each - factor[:, None] * others)
    return found


def surely(units: Units, resamples: int, confidence: float, seed: int) -> list[np.ndarray]:
    """Return for each context the sign of each mean that surely isn't 0, of all contexts and reactors at once.

    The critical value is the quantile of the largest |resampled mean − mean| / standard error over all of them; a
    context of few units has that of Student's t with the same tail.

    Args:
        units: for each context, `[unit, ablated, reactor]`.
        resamples: the number of resamples.
        confidence: the confidence level.
        seed: the seed.

    Returns:
        for each context 1, −1 or 0, `[ablated, reactor]`.
    """
    random = np.random.default_rng(seed)
    largest = np.zeros(resamples)
    errors = []
    for each in units:
        count = len(each)
        flat = np.nan_to_num(each - each.mean(0)).reshape(count, -1)
        error = flat.std(0, ddof=1) / np.sqrt(count)
        errors.append(error.reshape(each.shape[1:]))
        drawn = _weights(random.integers(count, size=(resamples, count)), count) @ flat
        ratio = abs(drawn) / np.where(error > 0, error, np.inf)
        largest = np.maximum(largest, ratio.max(1))
    critical = np.quantile(largest, confidence)
    signs = []
    for each, error in zip(units, errors, strict=True):
        within = -stdtrit(len(each) - 1, ndtr(-critical)) * error
        mean = np.nan_to_num(each.mean(0))
        signs.append((np.sign(mean) * (abs(mean) > within)).astype(int))
    return signs
