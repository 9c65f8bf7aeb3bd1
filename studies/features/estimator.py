"""Estimate from pushes along directions what comes back, with bounds over prompts and directions.

All functions work on sums over prompts, which are weighted: by one, for the estimate, and by how often each prompt was
drawn. Directions are weighted in the same way, a gate row with its matched direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hydrascope.measures import Bootstrap
from studies.stored import rounded

#: Kinds whose directions were drawn, and are resampled; matched ones go with their gate rows.
_DRAWN = {"neurons": "neurons", "matched": "neurons", "isotropic": "isotropic"}
#: The ablated sublayers of a block, in their order.
SUBLAYERS = ("attn", "mlp")


@dataclass(frozen=True)
class Samples:
    """The measured changes of one set of prompts.

    Attributes:
        direct, total, whole: `[prompt, depth, place, direction]`, as `runs.push` returns them.
    """

    direct: np.ndarray
    total: np.ndarray
    whole: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "Samples":
        """Read the results of one run, in the order of its prompts."""
        batches = [dict(np.load(path)) for path in sorted(folder.glob("[0-9]*.npz")) if ".part" not in path.name]
        order = np.argsort(np.concatenate([each["index"] for each in batches]), kind="stable")
        return cls(*(np.concatenate([each[name] for each in batches])[order] for name in ("direct", "total", "whole")))

    def __len__(self) -> int:
        return len(self.direct)

    def take(self, prompts: slice | np.ndarray = slice(None), places: slice = slice(None)) -> "Samples":
        """Return some of the prompts and places."""
        return Samples(*(each[prompts][:, :, places] for each in (self.direct, self.total, self.whole)))


@dataclass(frozen=True)
class Weights:
    """Hold the weights of prompts and directions in each draw; the first draw is the estimate.

    Attributes:
        prompts: for each set `[draw, prompt]`.
        directions: for each kind `[draw, depth, direction]`, of mean 1.
    """

    prompts: Mapping[str, Float[np.ndarray, "draw prompt"]]
    directions: Mapping[str, Float[np.ndarray, "draw depth direction"]]

    @classmethod
    def draw(
        cls,
        prompts: Mapping[str, int],
        kinds: Mapping[str, int],
        depths: int,
        bootstrap: Bootstrap,
        *,
        by_prompt: bool = True,
        by_direction: bool = True,
    ) -> "Weights":
        """Draw the weights.

        Args:
            prompts: the number of prompts by set.
            kinds: the number of directions by kind.
            depths: the number of depths.
            bootstrap: the number of draws and the seed.
            by_prompt, by_direction: whether prompts, and directions, are drawn; if not, each counts once.
        """
        random = np.random.default_rng(bootstrap.seed)

        def drawn(count: int, resample: bool) -> np.ndarray:
            draws = (bootstrap.resamples, count)
            rest = random.multinomial(count, np.full(count, 1 / count), draws[0]) if resample else np.ones(draws)
            return np.concatenate([np.ones((1, count)), rest])

        of_prompts = {name: drawn(count, by_prompt) for name, count in prompts.items()}
        own = {
            kind: np.stack([drawn(kinds[kind], by_direction) for _ in range(depths)], 1)
            for kind in dict.fromkeys(_DRAWN.values())
            if kind in kinds
        }
        every = np.ones((bootstrap.resamples + 1, depths, 1))
        return cls(
            of_prompts,
            {kind: own[_DRAWN[kind]] if kind in _DRAWN else every.repeat(count, 2) for kind, count in kinds.items()},
        )


def damping(
    samples: Samples, weights: Float[np.ndarray, "draw prompt"]
) -> Float[np.ndarray, "draw depth place direction"]:
    """Return g = 1 − Σ total·direct / Σ direct² over prompts, in each draw.

    >>> one = np.full((3, 1, 1, 1), -2.0)
    >>> damping(Samples(one, one / 4, one), np.ones((1, 3))).item()
    0.75

    Args:
        samples: the changes.
        weights: how often each prompt counts.
    """
    back = _sums(weights, samples.direct * (samples.direct - samples.total))
    return back / _sums(weights, samples.direct**2)


def content(
    samples: Samples, weights: Float[np.ndarray, "draw prompt"]
) -> Float[np.ndarray, "draw depth place direction"]:
    """Return h: the slope over prompts of `whole` less `total`, on −`direct`, with a constant.

    Args:
        samples: the changes.
        weights: how often each prompt counts.
    """
    x, y = -samples.direct, samples.whole - samples.total
    count = weights.sum(1)[:, None, None, None]
    of_x, of_y = _sums(weights, x), _sums(weights, y)
    return (_sums(weights, x * y) - of_x * of_y / count) / (_sums(weights, x**2) - of_x**2 / count)


def _sums(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(np.tensordot(weights, values, 1))


def by_kind(
    values: Float[np.ndarray, "draw depth place direction"],
    kind: np.ndarray,
    weights: Mapping[str, Float[np.ndarray, "draw depth direction"]],
) -> dict[str, Float[np.ndarray, "draw depth between sublayer"]]:
    """Return the mean over the directions of each kind.

    Args:
        values: a number of each direction at each place.
        kind: `[direction]` the kind of each.
        weights: how often each direction counts.
    """
    found = {}
    for name, each in weights.items():
        mean = np.einsum("rdpk,rdk->rdp", values[..., kind == name], each) / each.shape[2]
        found[name] = mean.reshape(*mean.shape[:2], -1, len(SUBLAYERS))
    return found


def bounds(values: Float[np.ndarray, "draw"], bootstrap: Bootstrap) -> list[float | None]:
    """Return estimate, low and high of a number, given in each draw.

    >>> bounds(np.array([2.0, *range(101)]), Bootstrap(100, 0.9))
    [2.0, 5.0, 95.0]

    Args:
        values: the estimate, then its values in draws.
        bootstrap: the confidence.
    """
    outside = (1 - bootstrap.confidence) / 2
    return [rounded(values[0]), *(rounded(each) for each in np.quantile(values[1:], [outside, 1 - outside]))]


def loudest(samples: Sequence[Samples], kind: np.ndarray, *, share: float, blocks: int) -> dict[str, float | None]:
    """Return the share of Σ direct² that the loudest prompts hold, and the difference of g read without them.

    Args:
        samples: the changes of each set of prompts, at the places that the difference is read at.
        kind: `[direction]` the kind of each.
        share: the share of the prompts that count as loud.
        blocks: the number of blocks of prompts whose median is taken.

    Returns:
        `prompts`, their number in each set together; `hold`, what they hold; `without`, the difference of g without
        them; `blocks`, the median over blocks of prompts.
    """
    known = np.isin(kind, ("neurons", "matched"))
    loud = [((each.direct**2) / (each.direct**2).mean(0))[..., known].mean((1, 2, 3)) for each in samples]
    orders = [np.argsort(-each) for each in loud]
    counts = [max(1, round(share * len(each))) for each in loud]
    hold = [each[order[:count]].sum() / each.sum() for each, order, count in zip(loud, orders, counts, strict=True)]
    quiet = [each.take(order[count:]) for each, order, count in zip(samples, orders, counts, strict=True)]
    some = [[each.take(np.arange(start, len(each), blocks)) for each in samples] for start in range(blocks)]
    return {
        "prompts": sum(counts),
        "hold": rounded(max(hold)),
        "without": rounded(_difference(quiet, kind)),
        "blocks": rounded(float(np.median([_difference(each, kind) for each in some if all(map(len, each))]))),
    }


def _difference(samples: Sequence[Samples], kind: np.ndarray) -> float:
    """Return g of gate rows less that of matched directions, the mean of the sets."""
    found = [damping(each, np.ones((1, len(each))))[0] for each in samples]
    return float(np.mean([g[..., kind == "neurons"].mean() - g[..., kind == "matched"].mean() for g in found]))
