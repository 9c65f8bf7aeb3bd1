"""Backups of seed sets by their reaction, and how well published scores find them."""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from hydrascope.measures.bootstrap import Bootstrap, interval, mean_interval, simultaneous
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.measures.questions import NEGLIGIBLE
from hydrascope.utils.errors import HydrascopeError

#: The scores of candidates; those by gradients are missing where none were measured.
SCORES = (
    *("coax", "ratio", "conditional", "single", "coupling"),
    *("|atp|", "two-state atp*", "|direct|", "synergy", "depth"),
)
#: What scores should predict.
TRUTHS = ("reaction", "synergy")
#: The candidates that are scored: all, or those downstream of the seed set.
AMONG = ("all", "downstream")
#: The fewest candidates of a class for a curve, and of all for a correlation.
FEWEST = 3


def backups(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return which candidates are backups of each seed set, by their reaction.

    A candidate is a backup if its reaction is surely above 0 and at least 5% of what the seed set removes, in means
    over prompts. Where a seed set removes nothing in the mean, nothing is backed up.

        >>> one = hs.analyses.backups(model, prompts, of="attn.3", candidates="head.4.0,head.4.1,mlp.5", slopes=False)
        >>> hs.measures.backups(one)["is_backup"].values.tolist()
        [[False, True, True]]

    Args:
        found: the result of `hydrascope.analyses.backups`.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Returns:
        in the readout's unit:

        - `reaction`, `synergy` [bound, seed, candidate]: means, with bounds that hold for all candidates of a seed set
          at once;
        - `unembed` [bound, candidate]: the contribution in the clean pass, with such bounds;
        - `removed` [bound, seed]: what the seed set removes;
        - `is_backup` [seed, candidate];
        - `kind` [seed, candidate]: of a backup, `brake` if it surely writes against the readout in the clean pass,
          `substitute` if it surely writes for it, `unclear` if neither is sure; else empty.

    Raises:
        HydrascopeError: this is another result, or there is no such readout.
    """
    chosen, bootstrap = _chosen(found, readout), bootstrap or Bootstrap()
    effects = simultaneous(_itself, chosen[["reaction", "synergy", "unembed"]], bootstrap, "candidate")
    removed = mean_interval(chosen["removed"], bootstrap)
    is_backup = _is_sure(effects["reaction"], removed)
    low, high = (effects["unembed"].sel(bound=side, drop=True) for side in ("low", "high"))
    sides = np.select([high < 0, low > 0], ["brake", "substitute"], "unclear")
    kind = xr.where(is_backup, xr.DataArray(sides, dims="candidate"), "")  # type: ignore[no-untyped-call]
    order = ("bound", "seed", "candidate")
    labels = found[["downstream", "block"]].reset_coords()
    return effects.assign(removed=removed, is_backup=is_backup, kind=kind).transpose(*order).assign_coords(labels)


def backup_scores(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return how well each score orders the candidates of a seed set, by both truths.

        >>> one = hs.analyses.backups(model, prompts, of="attn.3", candidates="head.4.0,head.4.1,mlp.4,mlp.5")
        >>> scores = hs.measures.backup_scores(one)
        >>> scores["spearman"].sel(score="coax", truth="reaction", among="downstream").dims
        ('bound', 'seed')

    The scores are `coax`, `ratio`, `conditional`, `single` and `coupling` (energies), `|atp|`, `two-state atp*`,
    `|direct|`, `synergy`, and `depth`, the number of the candidate's block. Metrics that were measured come last, by
    name: their means in the state without the seed set minus those alone. All are of means over prompts. A candidate
    without a score, as a ratio to 0, is left out for that score; `synergy` isn't compared with itself.

    Args:
        found: the result of `hydrascope.analyses.backups`.
        readout: the readout's label; by default the first.
        bootstrap: how intervals are drawn.

    Returns:
        - `spearman` [bound, among, seed, truth, score]: the rank correlation with `reaction` and `synergy` over all
          candidates and over those downstream; NaN where one is constant or there are fewer than three;
        - `auc`, `average_precision` (likewise): how well the score tells candidates with a truth that is surely above 0
          and at least 5% of what the seed set removes. The classes are those of all prompts; NaN, "can't tell", where
          one has fewer than three;
        - `positives` [among, seed, truth], `candidates` [among, seed]: the number of such candidates, and of all.

    Scores and truths are resampled together, so that noise which they share raises both.

    Raises:
        HydrascopeError: as `backups`, or a metric has the name of a score.
    """
    chosen, bootstrap = _chosen(found, readout), bootstrap or Bootstrap()
    if taken := set(SCORES) & {*map(str, found["metric"].values if "metric" in found else ())}:
        raise HydrascopeError(f"a metric and a score are called {min(taken)}: give the metric's function another name")
    truths = backups(found, readout, bootstrap)
    classes = {name: _is_sure(truths[name], truths["removed"]).transpose("seed", "candidate") for name in TRUTHS}
    measured = chosen[[name for name in _MEANS if name in chosen]]
    there = chosen["reaction"].notnull().all("prompt").transpose("seed", "candidate").values
    reached = found["downstream"].transpose("seed", "candidate").values
    scored = []
    for number in range(found.sizes["seed"]):
        for among in AMONG:
            kept = there[number] & (reached[number] if among == "downstream" else True)
            one = measured.isel(seed=number, candidate=kept)
            positive = {name: each.values[number, kept] for name, each in classes.items()}
            scored.append(_score(one, found["block"].values[kept], positive, bootstrap))
    index = pd.MultiIndex.from_product([map(str, found["seed"].values), AMONG], names=("seed", "among"))
    joined = xr.concat(scored, "each").assign_coords(xr.Coordinates.from_pandas_multiindex(index, "each"))
    return joined.unstack("each").transpose("bound", "among", "seed", "truth", "score").sel(among=list(AMONG))


#: What scores and truths are made of.
_MEANS = (
    *("single", "conditional", "coupling", "synergy", "reaction", "direct", "atp", "atp_two_state"),
    *("metric_single", "metric_conditional"),
)


def _chosen(found: xr.Dataset, readout: str | None) -> xr.Dataset:
    """Return one readout of a search for backups, without coordinates.

    Raises:
        HydrascopeError: the result is another, or there is no such readout.
    """
    if not {"reaction", "conditional", "removed"} <= {*map(str, found)}:
        raise HydrascopeError("this is no search for backups: give the result of hs.analyses.backups")
    chosen = select_readout(found, readout)
    return chosen.drop_vars([name for name in chosen.coords if name not in ("seed", "candidate", "metric")])


def _itself(means: xr.Dataset) -> xr.Dataset:
    return means


def _is_sure(bounds: xr.DataArray, removed: xr.DataArray) -> xr.DataArray:
    """Whether a truth is surely above 0 and no negligible share of what is removed."""
    mean, amount = (each.sel(bound="estimate", drop=True) for each in (bounds, removed))
    return (bounds.sel(bound="low", drop=True) > 0) & (amount > 0) & (mean >= NEGLIGIBLE * amount)


def _score(
    samples: xr.Dataset, block: np.ndarray, positive: dict[str, Bool[np.ndarray, "candidate"]], bootstrap: Bootstrap
) -> xr.Dataset:
    """Return the agreement of scores and truths over some candidates of one seed set."""

    def agreement(means: xr.Dataset) -> xr.Dataset:
        scores, truths = _scores(means, block), [means[name].values for name in TRUTHS]
        columns = {
            "spearman": [[_spearman(score, truth) for score in scores.values()] for truth in truths],
            "auc": [[_auc(score, positive[name]) for score in scores.values()] for name in TRUTHS],
            "average_precision": [
                [_average_precision(score, positive[name]) for score in scores.values()] for name in TRUTHS
            ],
        }
        itself = np.array([[name == truth for name in scores] for truth in TRUTHS])[..., None]
        dims = ("truth", "score", "resample")
        return xr.Dataset(
            {name: (dims, np.where(itself, np.nan, values)) for name, values in columns.items()},
            {"truth": list(TRUTHS), "score": list(scores)},
        )

    counts = {"positives": ("truth", [int(positive[name].sum()) for name in TRUTHS]), "candidates": len(block)}
    return interval(agreement, samples, bootstrap).assign(counts)


def _scores(means: xr.Dataset, block: np.ndarray) -> dict[str, Float[np.ndarray, "resample candidate"]]:
    """Return the scores of candidates by name."""
    values = {str(name): each.transpose(..., "resample", "candidate").values for name, each in means.items()}
    single, conditional = values["single"], values["conditional"]
    found = {
        "coax": conditional - single,
        "ratio": conditional / np.where(single > 0, single, np.nan),
        "conditional": conditional,
        "single": single,
        "coupling": values["coupling"],
        "|direct|": abs(values["direct"]),
        "synergy": values["synergy"],
        "depth": np.broadcast_to(block.astype(float), single.shape),
    }
    if "atp" in values:
        found |= {"|atp|": abs(values["atp"]), "two-state atp*": values["atp_two_state"]}
    ordered = {name: found[name] for name in SCORES if name in found}
    if "metric_single" not in values:
        return ordered
    gains = values["metric_conditional"] - values["metric_single"]
    return ordered | dict(zip(map(str, means["metric"].values), gains, strict=True))


def _spearman(
    score: Float[np.ndarray, "resample candidate"], truth: Float[np.ndarray, "resample candidate"]
) -> Float[np.ndarray, "resample"]:
    """Return the rank correlation over candidates with a score.

    It is NaN where one side is constant, or there are too few.
    """
    known = np.isfinite(score[0])
    if known.sum() < FEWEST:
        return np.full(len(score), np.nan)
    one, other = (rankdata(each[:, known], axis=1) for each in (score, truth))
    one, other = (each - each.mean(1, keepdims=True) for each in (one, other))
    with np.errstate(invalid="ignore"):
        return np.asarray((one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1)))


def _auc(
    score: Float[np.ndarray, "resample candidate"], positive: Bool[np.ndarray, "candidate"]
) -> Float[np.ndarray, "resample"]:
    """Return the share of pairs of both classes in the right order, ties counting a half."""
    known = np.isfinite(score[0])
    score, positive = score[:, known], positive[known]
    count = positive.sum()
    if not _can_tell(positive):
        return np.full(len(score), np.nan)
    above = rankdata(score, axis=1)[:, positive].sum(1) - count * (count + 1) / 2
    return np.asarray(above / (count * (len(positive) - count)))


def _average_precision(
    score: Float[np.ndarray, "resample candidate"], positive: Bool[np.ndarray, "candidate"]
) -> Float[np.ndarray, "resample"]:
    """Return the mean over positives of the precision among all that score as high."""
    known = np.isfinite(score[0])
    score, positive = score[:, known], positive[known]
    if not _can_tell(positive):
        return np.full(len(score), np.nan)
    every = rankdata(-score, "max", axis=1)[:, positive]
    return np.asarray((rankdata(-score[:, positive], "max", axis=1) / every).mean(1))


def _can_tell(positive: Bool[np.ndarray, "candidate"]) -> bool:
    return bool(FEWEST <= positive.sum() <= len(positive) - FEWEST)
