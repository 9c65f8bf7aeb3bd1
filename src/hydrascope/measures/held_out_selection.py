"""The part whose repair stands out: chosen on one half of the prompts and measured on the other, both ways round.

What is chosen for being the largest of many is a little too large where it was chosen (the winner's curse). On prompts
that had no say in the choice it isn't.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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

#: Only what removes more than this share of the readout, in the mean over prompts, can be chosen: what removes next to
#: nothing has a repair of any size.
MIN_SHARE = 0.01

#: Of fewer prompts no half can choose a part: it takes two to see whether more is restored where more is removed.
FEWEST = 4

#: `[ablated]` how well each part does on some prompts; NaN where it can't be chosen.
Score = Callable[[xr.Dataset], xr.DataArray]


@dataclass(frozen=True)
class HeldOut:
    """What was chosen, and what it does where it wasn't.

    Attributes:
        picks: the part chosen on the first half of the prompts, and on the second.
        first: which prompts are in the first half.
        samples: `[prompt, …]` of each prompt, of the part that was chosen without it.
    """

    picks: tuple[str, str]
    first: Bool[np.ndarray, "prompt"]
    samples: xr.Dataset

    @property
    def named(self) -> str:
        """`attn.3`; `attn.3 or attn.5` where the halves disagree."""
        return " or ".join(dict.fromkeys(self.picks))

    @property
    def pooled(self) -> bool:
        """Whether the halves disagree: numbers over all prompts are then those of neither part."""
        return len(set(self.picks)) > 1

    def take(self, values: xr.DataArray) -> xr.DataArray:
        """`[prompt, …]` of each prompt, `values` [prompt, ablated, …] of the part chosen without it."""
        on_first, on_second = (values.sel(ablated=pick).reset_coords(drop=True) for pick in self.picks)
        return on_second.where(xr.DataArray(self.first, dims="prompt"), on_first)


@takes_effects
def candidates(effects: Effects, kind: ComponentKind) -> xr.Dataset:
    """`amounts` of those ablated parts of one kind that have anything downstream and are weighty.

    Which are is decided on all prompts: how much a part removes is not what is found out about it, and where it was
    decided on halves, a part at the edge would be passed over by one of them.
    """
    samples = _answered(effects, kind)
    return samples.isel(ablated=above_threshold(samples).values)


def _answered(effects: Effects, kind: ComponentKind) -> xr.Dataset:
    """`amounts` of those ablated parts of one kind that have anything downstream, and the readout's `size`."""
    samples = budget(effects).assign(size=abs(effects["logit"]))
    return of_kind(samples.isel(ablated=compensable(effects).values), "ablated", kind)


def above_threshold(samples: xr.Dataset) -> xr.DataArray:
    """`[ablated]` whether a part removes more than the share `MIN_SHARE` of the readout's mean size."""
    return _beyond(samples[["removed", "size"]].mean("prompt"))["removed"] > 0


def _beyond(means: xr.Dataset) -> xr.Dataset:
    """By how much what is removed exceeds the share `MIN_SHARE` of the readout's mean size."""
    return means[["removed"]] - MIN_SHARE * means["size"]


@takes_effects
def none_above_threshold(effects: Effects, kind: ComponentKind, bootstrap: Bootstrap) -> bool:
    """Whether no part of one kind is weighty by bounds that hold for all of them at once, not by its mean alone."""
    samples = _answered(effects, kind)[["removed", "size"]]
    bounds = simultaneous(_beyond, samples, bootstrap, "ablated")["removed"]
    return bool((bounds.sel(bound="high") < 0).all())


def most_restored(samples: xr.Dataset) -> xr.DataArray:
    """The share restored, as a ratio of means, of what is restored the more the more is removed.

    Of everything, where nothing has a positive slope. NaN of what removes nothing or less on these prompts: of that
    there is no share, and more damage would pass for more repair.
    """
    removed = samples["removed"].mean("prompt")
    share = samples["restored"].mean("prompt") / removed.where(removed > 0)
    rising = share.where(xr.cov(samples["removed"], samples["restored"], "prompt") > 0)
    return share if rising.isnull().all() else rising


def best_explained(samples: xr.Dataset) -> xr.DataArray:
    """R² of CE on DE (Figure 7b) of what has a positive slope."""
    correlation = xr.corr(samples["contribution"], samples["compensated"], "prompt")
    return (correlation**2).where(correlation > 0)


@takes_effects
def best_sublayer(effects: Effects, kind: SublayerKind = "attn") -> str | None:
    """The weighty layer of one kind by `best_explained`, chosen on all prompts (Figure 7b); None if there is none.

    Its R² on the same prompts is a little too high: `best_sublayer_held_out` measures it on others.
    """
    samples = candidates(effects, kind)
    scores = best_explained(samples) if samples.sizes["ablated"] else None
    return None if scores is None or scores.isnull().all() else _argmax(scores)


@takes_effects
def best_sublayer_held_out(
    effects: Effects, kind: SublayerKind = "attn", bootstrap: Bootstrap | None = None
) -> tuple[HeldOut, xr.Dataset] | None:
    """The best layer of one kind, chosen on either half of the prompts, and `regression` [bound] on the other.

    None if there is none. Where the halves choose two layers, the regression runs over the prompts of both.
    """
    held = held_out(candidates(effects, kind), best_explained)
    if held is None:
        return None
    samples = held.samples
    return held, regression(samples["contribution"], samples["compensated"], bootstrap)


def held_out(samples: xr.Dataset, score: Score, seed: int = 0) -> HeldOut | None:
    """Choose the part with the highest score on either half of the prompts; None where a half has no choice.

    Args:
        samples: `[prompt, ablated]`, and whatever else has a dimension `prompt`.
        seed: of the halves.
    """
    prompts = samples.sizes["prompt"]
    if prompts < FEWEST or not samples.sizes["ablated"]:
        return None
    first = halves(prompts, seed)
    scores = [score(samples.isel(prompt=half)) for half in (first, ~first)]
    if any(each.isnull().all() for each in scores):
        return None
    picks = _argmax(scores[0]), _argmax(scores[1])
    held = HeldOut(picks, first, samples)
    per_part = {name: held.take(values) for name, values in samples.items() if "ablated" in values.dims}
    return replace(held, samples=samples.drop_vars(list(per_part)).drop_dims("ablated").assign(per_part))


def halves(prompts: int, seed: int = 0) -> Bool[np.ndarray, "prompt"]:
    """Which prompts are in the first half, drawn at random."""
    return np.random.default_rng(seed).permutation(prompts) < prompts // 2


def _argmax(scores: xr.DataArray) -> str:
    return str(scores.idxmax("ablated").values)
