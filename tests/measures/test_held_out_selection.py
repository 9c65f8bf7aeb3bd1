"""The choice of the best of many: measured where it wasn't made, by simulation over data sets whose truth is known."""

import numpy as np
import pytest
import synthetic
import xarray as xr

from hydrascope.measures import (
    MIN_SHARE,
    Bootstrap,
    above_threshold,
    best_sublayer,
    best_sublayer_held_out,
    candidates,
    held_out,
    interval,
    most_restored,
    per_prompt,
    simultaneous,
)
from hydrascope.measures.held_out_selection import best_explained, halves

FEW = Bootstrap(resamples=300)
#: Fewer make the bounds themselves uncertain, and intervals cover less often than they say.
ENOUGH = Bootstrap(resamples=1500)


def drawn(rng: np.random.Generator, restored: np.ndarray, prompts: int, noise: float) -> xr.Dataset:
    """What components that restore these shares do on some prompts: `candidates` of a run that never was."""
    removed = rng.gamma(4.0, 0.5, size=(prompts, len(restored)))
    back = removed * restored + noise * rng.standard_normal(removed.shape)
    names = [f"attn.{block}" for block in range(len(restored))]
    of = {name: (("prompt", "ablated"), values) for name, values in (("removed", removed), ("restored", back))}
    zero = (("prompt", "ablated"), 0 * removed)
    others = {
        "lost": (("prompt", "ablated"), removed - back),
        "attention": (("prompt", "ablated"), back),
        "mlp": zero,
        "norm": zero,
        "compensated": (("prompt", "ablated"), back),
        "contribution": (("prompt", "ablated"), removed),
    }
    data = xr.Dataset(
        {**of, **others, "size": ("prompt", np.full(prompts, 4.0))}, synthetic.coordinates("ablated", names)
    )
    return data


def share(means: xr.Dataset) -> xr.Dataset:
    return xr.Dataset({"share": means["restored"] / means["removed"]})


@pytest.mark.slow
def test_intervals_of_the_chosen_component_cover_its_truth_as_often_as_they_say() -> None:
    """Of the share restored at the component chosen on the other half; the truth differs between components."""
    rng, runs = np.random.default_rng(0), 300
    truth = np.array([0.1, 0.3, 0.5, 0.45])
    samples, expected = [], []
    for seed in range(runs):
        held = held_out(drawn(rng, truth, 80, 1.0), most_restored, seed)
        assert held is not None
        samples.append(held.samples[["removed", "restored"]])
        picked = [truth[int(pick.split(".")[1])] for pick in held.picks]
        # Of the prompts of either half, the truth of the component that the other one chose.
        expected.append(np.where(held.first, picked[1], picked[0]).mean())
    # Of all runs at once: of each they are what they would be alone.
    bounds = interval(share, xr.concat(samples, "run", coords="minimal", compat="override"), ENOUGH)["share"]
    alone = interval(share, samples[7], ENOUGH)["share"]
    np.testing.assert_allclose(bounds.isel(run=7), alone, rtol=1e-12)
    covered = (bounds.sel(bound="low") <= expected) & (expected <= bounds.sel(bound="high"))
    assert 0.925 <= covered.mean() <= 0.975


@pytest.mark.slow
def test_the_winner_is_cursed_where_it_was_chosen_and_not_where_it_was_measured() -> None:
    rng, truth = np.random.default_rng(1), np.full(20, 0.3)
    naive, honest = [], []
    for seed in range(100):
        samples = drawn(rng, truth, 60, 2.0)
        naive.append(float(most_restored(samples).max()))
        held = held_out(samples, most_restored, seed)
        assert held is not None
        honest.append(float(held.samples["restored"].mean() / held.samples["removed"].mean()))
    error = np.std(honest) / 10
    assert np.mean(naive) > 0.3 + 10 * error
    assert abs(np.mean(honest) - 0.3) < 3 * error


def test_what_is_measured_had_no_say() -> None:
    """Changing the prompts of one half never changes the component that they are measured at."""
    rng = np.random.default_rng(2)
    samples = drawn(rng, np.linspace(0, 0.6, 5), 40, 0.5)
    before = held_out(samples, most_restored)
    assert before is not None
    assert before.first.sum() == 20
    other = drawn(rng, np.linspace(0.6, 0, 5), 40, 0.5)
    mixed = xr.where(xr.DataArray(before.first, dims="prompt"), samples, other)
    mixed = mixed.assign_coords(samples.coords).transpose("prompt", "ablated")
    after = held_out(mixed, most_restored)
    assert after is not None
    assert after.picks[0] == before.picks[0] == "attn.4"
    assert after.picks[1] == "attn.0"
    np.testing.assert_array_equal(
        after.samples["restored"].values[~before.first], other["restored"].sel(ablated="attn.4").values[~before.first]
    )


def test_halves_are_halves() -> None:
    for prompts in (4, 5, 101):
        assert halves(prompts).sum() == prompts // 2
    assert not np.array_equal(halves(100, 0), halves(100, 1))


def test_what_removes_next_to_nothing_is_never_chosen() -> None:
    samples = drawn(np.random.default_rng(3), np.array([0.2, 0.9]), 40, 0.01)
    weak = samples["removed"].copy()
    weak[:, 1] *= 0.5 * MIN_SHARE * 4 / float(weak[:, 1].mean())
    samples = samples.assign(removed=weak)
    np.testing.assert_array_equal(above_threshold(samples), [True, False])
    results = synthetic.results(6, 60, 2, noise=0.3)
    chosen = set(map(str, candidates(per_prompt(results), "attn")["ablated"].values))
    assert chosen
    for label in map(str, results["ablated"].values):
        if label.startswith("attn"):
            removed = -float(results["direct"].sel(ablated=label).mean())
            assert (label in chosen) == (removed > MIN_SHARE * float(abs(results["logit"]).mean()))


def test_a_falling_slope_is_passed_over() -> None:
    """What is restored the less the more is removed isn't repair of it, however much there is on average."""
    samples = drawn(np.random.default_rng(4), np.array([0.2, 0.0]), 200, 0.01)
    restored = samples["restored"].copy()
    restored[:, 1] = 3 - 0.5 * samples["removed"][:, 1]
    assert most_restored(samples.assign(restored=restored))["ablated"].values[1] == "attn.1"
    assert np.isnan(most_restored(samples.assign(restored=restored)).values[1])
    assert np.isnan(best_explained(samples.assign(compensated=restored)).values[1])


def test_more_damage_to_what_is_not_removed_is_no_repair() -> None:
    """Both below 0, the share would be above it: 20 of what adds 0.02 where it is ablated, and costs 0.4 besides."""
    samples = drawn(np.random.default_rng(6), np.array([0.5, 0.0]), 40, 0.01)
    first = halves(40)
    removed, restored = samples["removed"].copy(), samples["restored"].copy()
    removed[:, 1] = np.where(first, -0.02, 0.16) + 0.01 * (removed[:, 0] - removed[:, 0].mean())
    restored[:, 1] = removed[:, 1] - np.where(first, 0.38, 0.5)
    samples = samples.assign(removed=removed, restored=restored)
    assert above_threshold(samples).all()
    held = held_out(samples, most_restored)
    assert held is not None
    assert held.picks == ("attn.0", "attn.0")


def test_no_choice() -> None:
    rng = np.random.default_rng(5)
    assert held_out(drawn(rng, np.array([0.5]), 3, 0.1), most_restored) is None
    assert held_out(drawn(rng, np.array([0.5]), 20, 0.1).isel(ablated=[]), most_restored) is None


def test_the_best_sublayer_of_results() -> None:
    results = synthetic.results(6, 60, 2, noise=0.3)
    effects = per_prompt(results)
    samples = candidates(effects, "attn")
    scores = best_explained(samples)
    best = best_sublayer(effects, "attn")
    assert best is not None
    assert float(scores.sel(ablated=best)) == float(scores.max())
    found = best_sublayer_held_out(effects, "attn", FEW)
    assert found is not None
    held, line = found
    x, y = held.samples["contribution"].values, held.samples["compensated"].values
    assert float(line["slope"].sel(bound="estimate")) == pytest.approx(np.polyfit(x, y, 1)[0])
    assert float(line["r2"].sel(bound="estimate")) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_simultaneous_bounds_hold_all_at_once() -> None:
    """Of 20 means all bounds are right in about 95% of the data sets, where single ones are in far fewer."""
    rng, runs = np.random.default_rng(6), 300
    samples = xr.Dataset({"mean": (("run", "prompt", "part"), rng.standard_normal((runs, 100, 20)))})
    together = simultaneous(lambda means: means, samples, ENOUGH, "part")["mean"]
    single = interval(lambda means: means, samples, ENOUGH)["mean"]
    # Of all runs at once: of each they are what they would be alone.
    alone = simultaneous(lambda means: means, samples.isel(run=7), ENOUGH, "part")["mean"]
    np.testing.assert_allclose(together.isel(run=7), alone, rtol=1e-12)
    right = [
        ((bounds.sel(bound="low") <= 0) & (bounds.sel(bound="high") >= 0)).all("part").mean()
        for bounds in (together, single)
    ]
    assert 0.92 <= right[0] <= 0.98
    assert right[1] < 0.6


def test_simultaneous_bounds_of_what_does_not_vary_are_points() -> None:
    samples = xr.Dataset({"mean": (("prompt", "part"), np.stack([np.ones(9), np.arange(9.0)], 1))})
    bounds = simultaneous(lambda means: means, samples, FEW, "part")["mean"]
    np.testing.assert_allclose(bounds[:, 0], 1)
    assert bounds[1, 1] < 4 < bounds[2, 1]
