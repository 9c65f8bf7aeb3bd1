"""Three questions on a kind of component: counted by hand, and the number of prompts that would tell by simulation."""

import numpy as np
import pytest
import scipy.stats
import synthetic
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hydrascope.measures import NEGLIGIBLE, Bootstrap, kinds, mean_interval, per_prompt, three_answers
from hydrascope.measures.questions import _MARGIN, ROUNDING, Answered, _answer, _Estimates, _rounded, answer_of

FEW = Bootstrap(resamples=200)


def _by_question(results: xr.Dataset, kind: str = "attn", bootstrap: Bootstrap = FEW) -> dict[str, Answered]:
    return {each.question: each for each in three_answers(per_prompt(results), kind, bootstrap)}


def test_counts_are_those_of_each_component_alone() -> None:
    """With much data and little scatter, every sign is sure: counts are those of plain regressions and means."""
    results = synthetic.results(6, 200, 2, noise=0.02)
    found, effects = _by_question(results), per_prompt(results)
    ablated = [
        label
        for label, kind in zip(effects["ablated"].values, kinds(effects["ablated"]), strict=True)
        if kind == "attn" and effects["downstream"].sel(ablated=label).any()
    ]
    written = {label: effects["contribution"].sel(ablated=label).values for label in ablated}
    writers = [
        label
        for label in ablated
        if float(mean_interval(effects["contribution"].sel(ablated=label), FEW).sel(bound="low")) > 0
    ]
    slopes: dict[str, list[float]] = {name: [] for name in found}
    for label in writers:
        one = effects.sel(ablated=label)
        change = (one["unembed_ablated"] - one["unembed"]).where(one["downstream"], 0).sum("component").values
        removed, restored = -one["direct"].values, (one["total"] - one["direct"]).values
        slopes["compensation"].append(scipy.stats.linregress(written[label], change).slope)
        slopes["prompt by prompt"].append(scipy.stats.linregress(removed, restored).slope)
        slopes["on average"].append(restored.mean() / removed.mean())
    for name, each in found.items():
        assert each.asked == len(writers)
        assert each.above <= (np.array(slopes[name]) > 0).sum() <= each.possible
    assert found["compensation"].above == (np.array(slopes["compensation"]) > 0).sum()


def test_each_component_has_an_answer_that_the_counts_count() -> None:
    """Estimates are plain regressions; the words follow from their bounds; counts are those of the words."""
    results = synthetic.results(6, 60, 2, noise=1.0, seed=3)
    effects = per_prompt(results)
    for question, found in _by_question(results).items():
        asked = [each for each in found.each if each.asked]
        assert len(asked) == found.asked > 0
        assert sum(each.answer == "yes" for each in asked) == found.above
        assert sum(not each.high < 0 for each in asked) == found.possible
        for each in found.each:
            one = effects.sel(ablated=each.ablated)
            removed, restored = -one["direct"].values, (one["total"] - one["direct"]).values
            change = (one["unembed_ablated"] - one["unembed"]).where(one["downstream"], 0).sum("component").values
            plain = {
                "compensation": scipy.stats.linregress(one["contribution"].values, change).slope,
                "prompt by prompt": scipy.stats.linregress(removed, restored).slope,
                "on average": restored.mean() / removed.mean(),
            }
            assert each.estimate == pytest.approx(plain[question], rel=1e-6)
            assert not each.estimate < each.low
            assert (each.answer == "yes") == (each.low > ROUNDING)
            assert (each.answer == "no") == (each.high < NEGLIGIBLE)


def test_a_slope_that_is_rounding_is_none() -> None:
    """Count no slope of a millionth: float32 makes it of 0, with bounds that don't hold 0."""
    ones = np.ones(3)
    tiny = _Estimates(ones, 0.1 * ones, ones, 0 * ones, 4e-6 * ones, 1e-7 * ones)
    assert tiny.counts(1.0) == (3, 0, 0)
    assert _answer(*tiny.counts(1.0)) == "no"
    assert answer_of(4e-6 - 1e-7, 4e-6 + 1e-7) == "no"
    small = _Estimates(ones, 0.1 * ones, ones, 0 * ones, 0.02 * ones, 0.01 * ones)
    assert small.counts(1.0) == (3, 3, 3)


def test_full_repair_is_yes_and_damage_is_no() -> None:
    shares = np.zeros((12, 12))
    for row in range(11):
        shares[row, row + 1] = 0.8
    yes = _by_question(synthetic.results(6, 100, 2, noise=0.01, shares=shares))
    assert {each.answer for each in yes.values()} == {"yes"}
    assert all(each.above == each.possible == each.asked for each in yes.values())
    no = _by_question(synthetic.results(6, 100, 2, noise=0.01, shares=-shares))
    assert no["compensation"].answer == "no"
    assert no["compensation"].possible == 0


def test_of_few_prompts_it_cannot_be_told_and_a_number_is_named() -> None:
    results = synthetic.results(6, 12, 2, noise=3)
    found = _by_question(results)["compensation"]
    assert found.answer == "can't tell"
    assert found.prompts_needed == 0 or found.prompts_needed > 12


@pytest.mark.parametrize(
    ("asked", "above", "possible", "answer"),
    [(0, 0, 0, "can't tell"), (4, 2, 4, "can't tell"), (4, 3, 4, "yes"), (4, 0, 1, "no"), (4, 0, 2, "can't tell")],
)
def test_more_than_half_is_yes(asked: int, above: int, possible: int, answer: str) -> None:
    assert _answer(asked, above, possible) == answer


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(10, 500))
@example(22765, 10, 100)  # 110 prompts would tell of one component, where three write now
@example(44, 4, 23)  # the margin alone tells of as many prompts as there are
@example(180, 9, 22)  # of 23 to 27 prompts the margin leaves one component that surely writes
def test_the_number_that_is_named_is_the_first_that_would_tell(seed: int, components: int, prompts: int) -> None:
    """By trying: with as many prompts widths have shrunk so far that the answer is known, with fewer they haven't."""
    draw = np.random.default_rng(seed)
    written, slope = draw.normal(0.5, 1, components), draw.normal(0.2, 0.5, components)
    widths = [draw.uniform(0.1, 2, components) for _ in range(2)]
    ones = np.ones(components)
    each = _Estimates(written, widths[0], ones, 0 * ones, slope, widths[1])
    needed = each.prompts_needed(prompts)

    asked_now, _, _ = each.counts(1.0)

    def known(number: float) -> bool:
        """Whether so many prompts tell, of at least as many components as surely write now."""
        counts = each.counts(_MARGIN * (prompts / number) ** 0.5)
        return counts[0] >= asked_now and _answer(*counts) != "can't tell"

    if _answer(*each.counts(1.0)) != "can't tell":
        return
    if needed:
        # Rounded up; with still more prompts other components may write surely.
        assert any(known(number) for number in np.linspace(0.9 * needed, needed, 200))
        earlier = [number for number in np.linspace(prompts, needed * 0.85, 40) if number > prompts]
        assert not any(map(known, earlier))
    else:
        assert not any(known(number) for number in np.geomspace(prompts * (1 + 1e-9), 900_000, 60))


def test_it_is_rounded_up_to_two_digits() -> None:
    assert [_rounded(each) for each in (7, 99, 101, 1234, 98_765)] == [7, 99, 110, 1300, 99_000]


def _population(prompts: int, seed: int) -> xr.Dataset:
    """Draw prompts from a population in which most attention sublayers are compensated for by half."""
    shares = np.zeros((10, 10))
    for row in range(0, 8, 2):
        shares[row, row + 1] = 0.5
    return synthetic.results(5, prompts, 1, noise=2.0, shares=shares, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [30, 100])
def test_with_as_many_prompts_most_runs_tell(prompts: int) -> None:
    """Runs that can't tell name a number; of runs with this number, from the same population, 50 to 90% tell."""
    named, told = [], 0
    for seed in range(60):
        pilot = _by_question(_population(prompts, seed))["compensation"]
        if pilot.answer != "can't tell" or not pilot.prompts_needed or pilot.prompts_needed > 3000:
            continue
        named.append(pilot.prompts_needed)
        told += _by_question(_population(pilot.prompts_needed, 1000 + seed))["compensation"].answer != "can't tell"
    assert len(named) > 20
    assert 0.5 <= told / len(named) <= 0.9
