"""Selection of the component with the most repair, measured on held-out prompts.

The largest of many is too large on the prompts on which it was chosen (the winner's curse), but not on held-out
prompts. So each half chooses a component, and the other half measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool

from hydrascope.components.component import SublayerKind
from hydrascope.measures.bootstrap import Bootstrap, simultaneous
from hydrascope.measures.compensation import compensable
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import ComponentKind, of_kind
from hydrascope.measures.regression import regression
from hydrascope.measures.restoration import budget

#: The least share of the readout that a component must remove, in the mean over prompts, to be chosen. The share
#: restored of next to nothing may have any size.
MIN_SHARE = 0.01

#: The fewest prompts that can be halved: each half needs two for a slope.
FEWEST = 4

#: A kind of sublayers to choose from, or both kinds.
EitherKind = SublayerKind | Literal["either"]

#: A function from samples of some prompts to the score of each component, `[ablated]`; NaN where it can't be chosen.
Score = Callable[[xr.Dataset], xr.DataArray]


@dataclass(frozen=True)
class HeldOut:
    """The components chosen by two halves of the prompts, and each measured on the other half.

    Attributes:
        picks: the labels of the components chosen on the first half and on the second.
        first: whether each prompt is in the first half, `[prompt]`.
        samples: `[prompt, …]`, of each prompt, for the component that the other half chose.
    """

    picks: tuple[str, str]
    first: Bool[np.ndarray, "prompt"]
    samples: xr.Dataset

    @property
    def named(self) -> str:
        """The chosen component, `attn.3`, or both if the halves disagree, `attn.3 or attn.5`."""
        return " or ".join(dict.fromkeys(self.picks))

    @property
    def pooled(self) -> bool:
        """Whether the halves disagree, so that numbers over all prompts mix two components."""
        return len(set(self.picks)) > 1

    def take(self, values: xr.DataArray) -> xr.DataArray:
        """Return the values of each prompt for the component that the other half chose.

        Args:
            values: `[prompt, ablated, …]`.

        Returns:
            `[prompt, …]`.
        """
        on_first, on_second = (values.sel(ablated=pick).reset_coords(drop=True) for pick in self.picks)
        return on_second.where(xr.DataArray(self.first, dims="prompt"), on_first)


@takes_effects
def candidates(effects: Effects, *kind: ComponentKind) -> xr.Dataset:
    """Return the `budget` of the components of some kinds that may be chosen.

    These have something downstream and remove more than the share `MIN_SHARE` of the readout. This is decided on all
    prompts: halves might disagree on a component at the edge.

    >>> samples = hs.measures.candidates(effects, "attn")

    Args:
        effects: on one readout.
        *kind: the kinds of the ablated components.

    Returns:
        the variables of `budget` [prompt, ablated], and `size` [prompt], the absolute value of the readout.
    """
    samples = _budget_of_kind(effects, *kind)
    return samples.isel(ablated=above_threshold(samples).values)


def _budget_of_kind(effects: Effects, *kind: ComponentKind) -> xr.Dataset:
    """Return the `budget` of components of some kinds with something downstream, and `size`."""
    samples = budget(effects).assign(size=abs(effects["logit"]))
    return of_kind(samples.isel(ablated=compensable(effects).values), "ablated", *kind)


def _of_either(kind: EitherKind) -> tuple[SublayerKind, ...]:
    return ("attn", "mlp") if kind == "either" else (kind,)


def above_threshold(samples: xr.Dataset) -> xr.DataArray:
    """Whether a component removes more than the share `MIN_SHARE` of the readout's mean size.

    >>> is_large = hs.measures.above_threshold(hs.measures.candidates(effects, "attn"))

    Args:
        samples: `removed` [prompt, ablated] and `size` [prompt].

    Returns:
        `[ablated]`, booleans.
    """
    return _excess(samples[["removed", "size"]].mean("prompt"))["removed"] > 0


def _excess(means: xr.Dataset) -> xr.Dataset:
    """Return the excess of `removed` over the share `MIN_SHARE` of the readout's mean size."""
    return means[["removed"]] - MIN_SHARE * means["size"]


@takes_effects
def none_above_threshold(effects: Effects, kind: ComponentKind, bootstrap: Bootstrap) -> bool:
    """Whether all components of one kind remove less than the threshold of `above_threshold`.

    It is decided by bounds that hold for all of them at once.

    >>> none = hs.measures.none_above_threshold(effects, "mlp", hs.measures.Bootstrap())

    Args:
        effects: on one readout.
        kind: the kind of the ablated components.
        bootstrap: how the bounds are drawn.
    """
    samples = _budget_of_kind(effects, kind)[["removed", "size"]]
    bounds = simultaneous(_excess, samples, bootstrap, "ablated")["removed"]
    return bool((bounds.sel(bound="high") < 0).all())


def most_restored(samples: xr.Dataset) -> xr.DataArray:
    """Return the share restored of each component that restores more where it removes more.

    If no component does, the shares of all are returned. A share is a ratio of means over prompts. It is NaN where the
    mean removed isn't positive.

    >>> share = hs.measures.most_restored(hs.measures.candidates(effects, "attn"))

    Args:
        samples: `removed` and `restored` [prompt, ablated].

    Returns:
        `[ablated]`, without unit.
    """
    removed = samples["removed"].mean("prompt")
    share = samples["restored"].mean("prompt") / removed.where(removed > 0)
    rising = share.where(xr.cov(samples["removed"], samples["restored"], "prompt") > 0)
    return share if rising.isnull().all() else rising


def best_explained(samples: xr.Dataset) -> xr.DataArray:
    """Return R² of CE on DE (Figure 7b), NaN where the slope isn't positive, `[ablated]`."""
    correlation = xr.corr(samples["contribution"], samples["compensated"], "prompt")
    return (correlation**2).where(correlation > 0)


@takes_effects
def best_sublayer(effects: Effects, kind: EitherKind = "attn") -> str | None:
    """Return the candidate with the highest R² of CE on DE, chosen on all prompts (Figure 7b).

    Its R² is biased upwards on these prompts: `best_sublayer_held_out` measures it on others.

    >>> best = hs.measures.best_sublayer(effects)

    Args:
        effects: on one readout.
        kind: the kind of the ablated sublayers, or `either` to choose among both.

    Returns:
        its label, or None if there is no candidate with a positive slope.
    """
    samples = candidates(effects, *_of_either(kind))
    scores = best_explained(samples) if samples.sizes["ablated"] else None
    return None if scores is None or scores.isnull().all() else _argmax(scores)


@takes_effects
def best_sublayer_held_out(
    effects: Effects, kind: EitherKind = "attn", bootstrap: Bootstrap | None = None
) -> tuple[HeldOut, xr.Dataset] | None:
    """Choose the best sublayer on either half of the prompts, and measure it on the other.

    >>> chosen, fit = hs.measures.best_sublayer_held_out(effects)

    Args:
        effects: on one readout.
        kind: the kind of the ablated sublayers, or `either` to choose among both.
        bootstrap: how intervals are drawn.

    Returns:
        the choice, and `regression` [bound] of CE on DE over held-out prompts, pooled if the halves choose two
        sublayers. None if a half has no choice.
    """
    choice = held_out(candidates(effects, *_of_either(kind)), best_explained)
    if choice is None:
        return None
    samples = choice.samples
    return choice, regression(samples["contribution"], samples["compensated"], bootstrap)


def held_out(samples: xr.Dataset, score: Score, seed: int = 0) -> HeldOut | None:
    """Choose the component with the highest score on either half of the prompts.

    >>> samples = hs.measures.candidates(effects, "attn")
    >>> chosen = hs.measures.held_out(samples, hs.measures.most_restored)

    Args:
        samples: `[prompt, ablated]`, and other variables with a dimension `prompt`.
        score: a function from `samples` to the score of each component, `[ablated]`; NaN where it can't be chosen.
        seed: the seed of the halves.

    Returns:
        the choice, or None if a half has none.
    """
    prompts = samples.sizes["prompt"]
    if prompts < FEWEST or not samples.sizes["ablated"]:
        return None
    first = halves(prompts, seed)
    scores = [score(samples.isel(prompt=half)) for half in (first, ~first)]
    if any(each.isnull().all() for each in scores):
        return None
    picks = _argmax(scores[0]), _argmax(scores[1])
    choice = HeldOut(picks, first, samples)
    taken = {name: choice.take(values) for name, values in samples.items() if "ablated" in values.dims}
    return replace(choice, samples=samples.drop_vars(list(taken)).drop_dims("ablated").assign(taken))


def halves(prompts: int, seed: int = 0) -> Bool[np.ndarray, "prompt"]:
    """Return whether each prompt is in the first half, drawn at random."""
    return np.random.default_rng(seed).permutation(prompts) < prompts // 2


def _argmax(scores: xr.DataArray) -> str:
    return str(scores.idxmax("ablated").values)
