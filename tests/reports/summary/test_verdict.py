"""The verdict: yes, no or can't tell, at which component, how much and by whom; and what is not told."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import synthetic
import xarray as xr

from hydrascope.measures import Bootstrap, candidates, held_out, most_restored, per_prompt
from hydrascope.measures.held_out_selection import halves
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import Interval, Verdict, clearest_verdict, format_interval
from hydrascope.reports.summary.caveats import warnings_of
from hydrascope.reports.summary.ledger import ledger, parts
from hydrascope.reports.summary.verdict_text import headline, one_line, sentences

FEW = Bootstrap(resamples=40)


def test_a_share_without_bounds_is_not_the_clearest() -> None:
    each = {"answer": "can't tell", "why": "", "clear": 0, "above_threshold": 1, "confidence": 0.95}
    nothing = Verdict("attn", **each, component="attn.0", restored=Interval(30, np.nan, np.nan))
    little = Verdict("mlp", **each, component="mlp.0", restored=Interval(0.1, -0.1, 0.3))
    none = Verdict("head", **each)
    for verdicts in permutations([nothing, little, none]):
        assert clearest_verdict(verdicts) is little


def verdict_of(results: xr.Dataset, kind: str = "attn") -> Verdict:
    return next(each for each in summarise(results, FEW).verdicts if each.kind == kind)


def test_nothing_is_restored_where_nothing_answers() -> None:
    """What is removed is lost: a share of 0 with little scatter is no."""
    results = synthetic.results(5, 60, 2, noise=0, norm_share=0, shares=np.zeros((10, 10)))
    found = verdict_of(results)
    assert found.answer == "no"
    assert found.restored.high < 0.05
    assert not found.responders


def test_a_repair_that_is_the_norm_s_alone_is_called_that() -> None:
    results = synthetic.results(5, 60, 2, noise=0, norm_share=0.6, shares=np.zeros((10, 10)))
    found = verdict_of(results)
    assert found.answer == "yes"
    # Half of the norm's share is direct: it responds to the ablated component alone.
    assert found.norm.estimate == pytest.approx(found.restored.estimate, abs=1e-4)
    assert abs(found.attention.estimate) < 1e-4
    assert abs(found.mlp.estimate) < 1e-4
    assert not found.responders


def test_what_cannot_be_told_is_not_told() -> None:
    results = synthetic.results(5, 20, 2, noise=40)
    assert verdict_of(results).answer == "can't tell"
    assert any("Can't tell" in sentence for sentence in sentences(summarise(results, FEW)))


def test_why_no_component_can_be_chosen() -> None:
    results = synthetic.results(3, 12, 1)
    assert verdict_of(results.isel(prompt=slice(3))).why.startswith("there are too few prompts")
    # The prompts of one half lose what those of the other gain many times over.
    direct = np.where(halves(12), -9.0, 1.0)[None, :, None, None] * np.ones(results["direct"].shape)
    assert verdict_of(results.assign(direct=results["direct"].copy(data=direct))).why == (
        "on one half of the prompts no component removes anything, so that none can be chosen on it"
    )


def test_sums_are_off_by_a_share_of_the_size_of_what_is_removed() -> None:
    """Of a component that was chosen on one half and adds on the other it is below 0."""
    effects = per_prompt(synthetic.results(3, 12, 1).assign_attrs(worst_imbalance=1e-5))
    found = verdict_of(synthetic.results(3, 12, 1))
    for removed, off in ((-0.1, False), (-1e-4, True), (0.1, False)):
        verdict = replace(found, component="attn.1", removed=Interval(removed, -1, 1))
        told = [each for each in warnings_of(effects.data, effects, [verdict], FEW) if each.startswith("computed in")]
        assert len(told) == off


def scattered(mean: float, prompts: int = 10) -> xr.Dataset:
    """Ablating attn.1 removes `mean` of the readout, give or take a tenth over prompts, and loses half of that."""
    results = synthetic.results(4, prompts, 1, ablated=["attn.1"], noise=0, patch_noise=0)
    spread = np.random.default_rng(0).standard_normal(prompts)
    removed = (mean + 0.1 * (spread - spread.mean())) * float(abs(results["logit"]).mean())
    effects = {name: share * removed[None, :, None, None] for name, share in (("direct", -1.0), ("total", -0.5))}
    return results.assign({name: (results[name].dims, values) for name, values in effects.items()})


def test_that_nothing_is_removed_must_be_sure() -> None:
    """A mean below the least that can be chosen is no proof, where its interval holds several times as much."""
    unsure, sure = verdict_of(scattered(0.005)), verdict_of(scattered(-0.2))
    assert (unsure.answer, unsure.component) == ("can't tell", "")
    assert unsure.why == "on average none removes more than 1% of the readout, but that isn't sure"
    assert (sure.answer, sure.component) == ("no", "")


def test_a_share_of_what_may_be_nothing_is_not_told() -> None:
    summary = summarise(scattered(0.02), FEW)
    told = " ".join(sentences(summary))
    assert "so that a share of it has no bounds" in told
    lost, restored = (
        format_interval(each, 2) for each in (summary.verdicts[0].lost, summary.verdicts[0].restored_amount)
    )
    assert f" and loses {lost} in the end: {restored} logits come back." in told
    assert "later attention makes up" not in told
    verdict = summary.verdicts[0]
    assert one_line(verdict, summary.run) == (
        f"With {verdict.component} resampled from other prompts, nothing is surely removed ({verdict.why})."
    )


def test_responders_are_those_that_respond_the_most_first() -> None:
    shares = np.zeros((10, 10))
    index = synthetic.labels(5).index
    shares[index("attn.3"), index("mlp.3")], shares[index("attn.3"), index("attn.4")] = 0.2, 0.5
    results = synthetic.results(5, 60, 2, shares=shares, noise=0.01, norm_share=0)
    found = verdict_of(results)
    assert found.component == "attn.3"
    assert [each.name for each in found.responders] == ["attn.4", "mlp.3"]
    removed = -results["direct"].sel(ablated="attn.3").mean()
    for each in found.responders:
        moved = (results["unembed_ablated"] - results["unembed"]).sel(ablated="attn.3", component=each.name).mean()
        assert each.response.estimate == pytest.approx(float(moved / removed), rel=1e-4)
        assert each.response.low < each.response.estimate < each.response.high


def test_the_placebo_is_what_the_same_ablations_restore_of_other_tokens() -> None:
    results = synthetic.results(5, 60, 2, readouts={"logit": -1, "placebo.0": -1, "placebo.1": -1})
    found = verdict_of(results)
    assert len(set(found.component.split(" or "))) == 1
    at = results.sel(ablated=found.component, readout=["placebo.0", "placebo.1"])
    assert found.placebo.estimate == pytest.approx(float((at["total"] - at["direct"]).mean()), rel=1e-4)
    assert "of other tokens (placebo, 2 a prompt) " in " ".join(sentences(summarise(results, FEW)))
    at = results.sel(ablated=found.component, readout="logit")
    assert found.restored_amount.estimate == pytest.approx(float((at["total"] - at["direct"]).mean()), rel=1e-4)


def test_two_kinds_share_what_may_be_wrong() -> None:
    both = summarise(synthetic.results(4, 30, 1), FEW).verdicts
    assert [each.confidence for each in both] == [0.975, 0.975]
    alone = summarise(synthetic.results(4, 30, 1, ablated=["attn.0", "attn.1"]), FEW).verdicts
    assert [each.confidence for each in alone] == [0.95]


def test_a_component_at_the_edge_of_what_can_be_chosen_is_not_passed_over() -> None:
    """It may be above it on one half of the prompts and below on the other; that is not yet a no."""
    shares = np.zeros((12, 12))
    index = synthetic.labels(6).index
    shares[index("attn.3"), index("attn.5")] = 0.4
    results = synthetic.results(6, 200, 2, shares=shares, noise=0.05, norm_share=0)
    removed = -results["direct"].sel(ablated="attn.3").mean()
    # Now attn.3 removes hardly more than 1% of the readout.
    results["logit"] = 0 * results["logit"] + 99 * float(removed)
    found = verdict_of(results)
    assert "attn.3" in found.component
    assert found.answer == "yes"
    assert found.clear >= 1


def test_where_the_halves_choose_two_components_numbers_are_said_to_be_of_neither() -> None:
    """The norm restores a little of each component alike: which half chooses which is chance."""
    results = synthetic.results(4, 40, 2, seed=2, shares=np.zeros((8, 8)))
    held = held_out(candidates(per_prompt(results), "attn"), most_restored)
    assert held is not None
    assert len(set(held.picks)) == 2
    summary = summarise(results, FEW)
    found = verdict_of(results)
    assert (found.answer, found.component, found.pooled) == ("yes", " or ".join(held.picks), True)
    pooled = float(held.samples["restored"].sum() / held.samples["removed"].sum())
    assert found.restored.estimate == pytest.approx(pooled)
    neither = (
        "The halves of the prompts chose different components. Amounts and shares pool both, and are of neither alone"
    )
    assert f" {neither}: they show that something is restored, not at which of them. " in sentences(summary)[0]
    assert one_line(found, summary.run).endswith(f" {neither}.")
    unsure = replace(found, answer="no", why="of the norm")
    assert f" {neither}. Of " in sentences(replace(summary, verdicts=(unsure,)))[0]
    best = [each.meaning for each in summary.findings if " or " in each.name]
    assert best
    assert all(meaning.endswith("; two components, pooled") for meaning in best)


def test_of_one_component_nothing_is_pooled() -> None:
    results = synthetic.results(4, 40, 2)
    found = verdict_of(results)
    assert not found.pooled
    summary = summarise(results, FEW)
    assert "pool" not in " ".join([*sentences(summary), one_line(found, summary.run)])


@pytest.mark.parametrize(
    ("bounds", "ablation", "told"),
    [
        ((0.83, 0.77, 0.89), "zero", "With attn.3 set to zero, 83% [77, 89] of what it adds to X comes back"),
        ((0.83, 0.77, 0.89), "mean", "With attn.3 replaced by its mean, 83% [77, 89] of what that takes from X"),
        ((0.83, 0.77, 0.89), "mine", "With attn.3 ablated, 83% [77, 89] of what that takes from X comes back"),
        ((0.1, -0.1, 0.3), "zero", "it isn't sure that anything of what it adds to X comes back: 10% [−10, 30]"),
        ((-0.4, -0.6, -0.1), "zero", "nothing of what it adds to X comes back, and more is lost: −40% [−60, −10]"),
        ((0.1, np.nan, np.nan), "zero", "With attn.3 set to zero, nothing is surely removed"),
    ],
)
def test_the_headline_names_the_ablation_and_the_held_out_share(
    bounds: tuple[float, float, float], ablation: str, told: str
) -> None:
    summary = summarise(synthetic.results(4, 40, 2), FEW)
    verdict = replace(summary.verdicts[0], component="attn.3", restored=Interval(*bounds))
    told = told.replace("X", "the answer")
    assert told in headline(verdict, {"ablation": ablation, "readout": "logit, at the clean run’s σ"})


def test_the_ledger_adds_up_to_what_is_removed() -> None:
    summary = summarise(synthetic.results(4, 40, 2), FEW)
    found = [verdict for verdict in summary.verdicts if verdict.component]
    assert found
    for verdict in found:
        amounts = [each.estimate for _, each in parts(verdict)]
        assert sum(amounts) == pytest.approx(verdict.removed.estimate)
        upper, lower, key = (str(each) for each in ledger(verdict, "logits").renderables)
        assert len(upper) == len(lower) == 70
        assert all(name in key for name in ("attention", "MLPs", "the norm", "lost"))


def test_an_amount_below_zero_adds_to_what_is_missing() -> None:
    verdict = replace(
        summarise(synthetic.results(4, 40, 2), FEW).verdicts[0],
        removed=Interval(1, 1, 1),
        amounts=(Interval(-0.5, -1, 0), Interval(0.25, 0, 1), Interval(0.5, 0, 1)),
        lost=Interval(0.75, 0, 1),
    )
    upper, lower, _ = (str(each)[10:] for each in ledger(verdict, "logits").renderables)
    assert (upper.count("█"), upper.count("▚")) == (40, 20)
    assert (lower.count("▓"), lower.count("█"), lower.count("·")) == (10, 20, 30)
