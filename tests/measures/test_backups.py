"""Backups and the scores of ways to find them, against numbers by hand and scipy."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hydrascope.measures import Bootstrap, backup_scores, backups
from hydrascope.reports.figures import figure_backups
from hydrascope.reports.summary.backup_table import backup_rows, backup_score_rows
from hydrascope.utils.errors import HydrascopeError

CANDIDATES = list("abcdefg")
#: Means by candidate; d isn't downstream, g overlaps with the seed set, c has no energy alone.
REACTION = [0.9, 0.5, 0.04, 0.0, -0.3, 0.2, np.nan]
SYNERGY = [-0.1, 0.4, 0.3, 0.2, 0.6, 0.5, np.nan]
UNEMBED = [-0.8, 0.6, -0.2, 0.7, 0.3, -0.4, 1.0]
SINGLE = [1.0, 2.0, 0.0, 4.0, 5.0, 6.0, 9.0]
CONDITIONAL = [4.0, 1.0, 3.0, 4.0, 7.0, 5.0, np.nan]
COUPLING = [3.0, 1.0, 2.0, 0.5, 4.0, 6.0, np.nan]
DOWNSTREAM = [True, True, True, False, True, True, False]
BLOCK = [1, 1, 2, 0, 3, 3, 0]


def varied(name: str, means: Sequence[float], noise: float, prompts: int) -> np.ndarray:
    """`[prompt, candidate]` with these means exactly, but where they are 0 the same on every prompt."""
    around = np.random.default_rng(crc32(name.encode())).normal(size=(prompts, len(means)))
    return np.array(means) + noise * (around - around.mean(0)) * (np.array(means) != 0)


def made(removed: float = 1.0, noise: float = 0.01, prompts: int = 40) -> xr.Dataset:
    """A search for backups of one seed set."""
    alone = {"single": SINGLE, "direct": [-value for value in UNEMBED], "unembed": UNEMBED}
    pairs = {"conditional": CONDITIONAL, "coupling": COUPLING, "synergy": SYNERGY, "reaction": REACTION}
    return xr.Dataset(
        {
            **{name: (("prompt", "candidate"), varied(name, means, noise, prompts)) for name, means in alone.items()},
            **{
                name: (("seed", "prompt", "candidate"), varied(name, means, noise, prompts)[None])
                for name, means in pairs.items()
            },
            "removed": (("seed", "prompt"), np.full((1, prompts), removed)),
        },
        {
            "seed": ["head.0.0"],
            "candidate": CANDIDATES,
            "downstream": (("seed", "candidate"), [DOWNSTREAM]),
            "block": ("candidate", BLOCK),
            "readout": "difference",
        },
        {"units": "logits", "model": "tiny"},
    )


def test_backups_are_sure_and_no_small_share() -> None:
    found = backups(made()).isel(seed=0)
    assert found["is_backup"].values.tolist() == [True, True, False, False, False, True, False]
    assert found["kind"].values.tolist() == ["brake", "substitute", "", "", "", "brake", ""]
    np.testing.assert_allclose(found["reaction"].sel(bound="estimate"), REACTION)
    np.testing.assert_allclose(found["unembed"].sel(bound="estimate"), UNEMBED)
    # With a smaller seed set 0.04 is no small share; it is sure as well.
    assert backups(made(removed=0.7))["is_backup"].values[0, 2]
    # What varies too much isn't sure.
    assert backups(made(noise=1.0)).isel(seed=0)["is_backup"].values.tolist() == [True, True, *[False] * 5]
    # Nor is the sign of a clean contribution.
    unsure = made()
    unsure["unembed"][:, 0] = -0.8 + 300 * (unsure["unembed"][:, 0] + 0.8)
    assert backups(unsure).isel(seed=0)["kind"].values.tolist() == ["unclear", "substitute", "", "", "", "brake", ""]


@pytest.mark.parametrize("given", [made(removed=0.0), made(removed=-1.0), made(prompts=1)])
def test_nothing_is_backed_up_where_nothing_is_removed_or_known(given: xr.Dataset) -> None:
    assert not backups(given)["is_backup"].values.any()


def test_bounds_hold_for_all_candidates_at_once() -> None:
    wide, narrow = (
        backups(each).isel(seed=0, candidate=0)["reaction"] for each in (made(), made().isel(candidate=[0]))
    )
    assert float(wide.sel(bound="low")) < float(narrow.sel(bound="low"))


@pytest.mark.parametrize("truth", ["reaction", "synergy"])
@pytest.mark.parametrize("among", ["all", "downstream"])
def test_spearman_is_scipys(truth: str, among: str) -> None:
    kept = [place for place in range(6) if among == "all" or DOWNSTREAM[place]]
    values = {"reaction": REACTION, "synergy": SYNERGY}[truth]
    expected = {
        "coax": [CONDITIONAL[place] - SINGLE[place] for place in range(6)],
        "conditional": CONDITIONAL,
        "single": SINGLE,
        "coupling": COUPLING,
        "|direct|": [abs(value) for value in UNEMBED],
        "synergy": SYNERGY,
        "depth": BLOCK,
    }
    # Without noise, since ties are to be ties.
    scores = backup_scores(made(noise=0.0), bootstrap=Bootstrap(10)).isel(seed=0)
    scores = scores.sel(truth=truth, among=among, bound="estimate")
    for name, score in expected.items():
        correlation = stats.spearmanr([score[place] for place in kept], [values[place] for place in kept])[0]
        found = float(scores["spearman"].sel(score=name))
        assert np.isnan(found) if name == truth else found == pytest.approx(correlation)
    known = [place for place in kept if SINGLE[place] > 0]
    ratio = stats.spearmanr([CONDITIONAL[p] / SINGLE[p] for p in known], [values[p] for p in known])[0]
    assert float(scores["spearman"].sel(score="ratio")) == pytest.approx(ratio)
    assert int(scores["candidates"]) == len(kept)


def test_auc_and_precision_by_hand() -> None:
    """Compare with conditional energies 4, 1, 3, 4, 7, 5 of a to f; a, b and f are backups."""
    scores = backup_scores(made(noise=0.0), bootstrap=Bootstrap(10)).isel(seed=0)
    every = scores.sel(among="all", truth="reaction", bound="estimate")
    assert int(every["positives"]) == 3
    # Pairs of a backup and c, d or e: a is above c and beside d, b above none, f above c and d.
    assert float(every["auc"].sel(score="conditional")) == pytest.approx((1.5 + 0 + 2) / 9)
    # In order: e, f, a and d, c, b. Precision is 1/2 at f, 2/4 at a, 3/6 at b.
    assert float(every["average_precision"].sel(score="conditional")) == pytest.approx(0.5)
    # Coupling is 3, 1, 2, 0.5, 4, 6. In order: f, e, a, c, b, d.
    assert float(every["auc"].sel(score="coupling")) == pytest.approx((2 + 1 + 3) / 9)
    assert float(every["average_precision"].sel(score="coupling")) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # Without c, which has no ratio, two are none.
    assert every["auc"].sel(score="ratio").isnull()
    # Among those downstream only c and e are none.
    few = scores.sel(among="downstream", truth="reaction")
    assert few["auc"].isnull().all()
    assert few["average_precision"].isnull().all()
    assert int(few["positives"]) == 3


def test_intervals_are_those_of_resampled_prompts() -> None:
    """Against a loop over the same resamples."""
    given, bootstrap = made(noise=3.0, prompts=12), Bootstrap(200)
    found = backup_scores(given, bootstrap=bootstrap).isel(seed=0).sel(among="downstream", truth="synergy")
    draws = np.random.default_rng(bootstrap.seed).integers(12, size=(200, 12))
    kept = [place for place in range(6) if DOWNSTREAM[place]]
    each = []
    for draw in draws:
        mean = given.isel(seed=0, prompt=draw, candidate=kept).mean("prompt")
        each.append(stats.spearmanr(mean["conditional"] - mean["single"], mean["synergy"])[0])
    tail = bootstrap.tail(12)
    expected = np.quantile(each, [tail, 1 - tail])
    np.testing.assert_allclose(found["spearman"].sel(score="coax", bound=["low", "high"]), expected)


def test_another_result_is_refused() -> None:
    for measure in (backups, backup_scores):
        with pytest.raises(HydrascopeError, match="this is no search for backups: give the result of"):
            measure(made().drop_vars("reaction"))
        with pytest.raises(HydrascopeError, match="there is no readout 'logit'"):
            measure(made(), "logit")


def test_rows_leave_out_what_overlaps_and_begin_with_the_largest() -> None:
    rows = backup_rows(made())
    assert [row.candidate for row in rows] == ["a", "b", "e", "f", "c", "d"]
    assert rows[0].coax == pytest.approx(3.0)
    assert np.isnan(rows[0].atp)
    assert [row.kind for row in rows] == ["brake", "substitute", "", "brake", "", ""]
    assert len(backup_score_rows(made())) == 2 * 2 * 8


def test_the_figure_shows_reactions_against_clean_contributions() -> None:
    axes = figure_backups(made()).axes[0]
    shown = {points.get_label(): points for points in axes.collections if points.get_label()[0] != "_"}
    drawn = {name: {tuple(np.round(at, 6)) for at in points.get_offsets()} for name, points in shown.items()}
    assert drawn == {
        "backup": {(-0.8, 0.9), (0.6, 0.5), (-0.4, 0.2)},
        "no backup": {(-0.2, 0.04), (0.3, -0.3)},
        "not downstream": {(0.7, 0.0)},
    }
    assert len(shown["backup"].get_facecolors())
    assert not len(shown["no backup"].get_facecolors())
    named = {text.get_text() for text in axes.texts}
    assert {"a", "b", "f", "substitute"} <= named
    assert not {"c", "d", "e", "g"} & named
