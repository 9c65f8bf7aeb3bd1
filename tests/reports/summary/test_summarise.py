"""Summarise a run: the measures' numbers under readable names, complete whatever the run."""

from dataclasses import astuple

import numpy as np
import pytest
import synthetic
from printed_summary import printed
from rest_slow import rest_slow

from hydrascope.measures import (
    Bootstrap,
    Sigma,
    best_sublayer_held_out,
    budget,
    compensation_regression,
    direct_effect,
    per_prompt,
    regression,
    restoration,
)
from hydrascope.reports.kinds import summarise, summarise_in_short
from hydrascope.reports.summary import PRINTED, Finding, Summary, strongest_component
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=40)


def finding(summary: Summary, name: str) -> Finding:
    return next(each for each in summary.findings if each.name == name)


def known() -> Summary:
    """Six blocks in which attn.3 does most, attn.4 gives back half of it and the erasing mlp.4 a fifth; the norm gives
    back a tenth, half of it at once."""
    shares = np.zeros((12, 12))
    index = synthetic.labels(6).index
    shares[index("attn.1"), index("attn.2")] = 1.5
    results = synthetic.results(6, 25, 3, shares=shares, noise=0, patch_noise=0, norm_share=0, dtype="float64")
    lift = 10 + np.arange(25.0)
    for label, height in (("attn.3", lift), ("mlp.4", -5 * lift), ("mlp.3", -lift), ("mlp.5", 2 + 0 * lift)):
        results["unembed"].loc[{"component": label}] = height
        for name in ("unembed_ablated", "unembed_ablated_own"):
            results[name].loc[{"component": label}] = height[:, None]
    backup = results["unembed"].sel(component="attn.4").values[0] + 0.5 * lift
    for label, height in (("attn.3", 0 * lift), ("mlp.4", -4.8 * lift), ("attn.4", backup)):
        for name in ("unembed_ablated", "unembed_ablated_own"):
            results[name].loc[{"ablated": "attn.3", "component": label}] = height
    # What the ablated run's own scale adds to all components together.
    results["unembed_ablated_own"].loc[{"ablated": "attn.3", "component": "attn.0"}] += 0.1 * lift
    results["direct"].loc[{"ablated": "attn.3"}] = (-0.95 * lift)[:, None]
    results["total"].loc[{"ablated": "attn.3"}] = (-0.2 * lift)[:, None]
    return summarise(results, FEW)


def test_of_effects_alone_it_is_said_how_much_is_restored_and_not_by_whom() -> None:
    results = synthetic.results(4, 30, 2, readouts={"logit": -1, "placebo.0": -1})
    alone = results.drop_vars([name for name in results if str(name).startswith("unembed_")]).assign_attrs(
        keep="effects"
    )
    for readout in ("logit", "placebo.0"):
        found, whole = summarise(alone, FEW, readout), summarise(results, FEW, readout)
        assert found.verdicts == found.findings == ()
        assert "measure again and keep means" in found.warnings[0]
        for one, other in zip(found.components, whole.components, strict=True):
            assert (one.ablated, one.kind) == (other.ablated, other.kind)
            for name in ("removed", "lost", "restored"):
                bounds = [[getattr(each, name).estimate, getattr(each, name).low] for each in (one, other)]
                np.testing.assert_allclose(*bounds, rtol=1e-6, atol=1e-9)
            assert np.isnan(one.attention.estimate)
            assert np.isnan(one.direct.estimate)
    text = printed(summarise(alone, FEW))
    assert "Ablations" in text
    assert "Findings" not in text


def test_findings_of_a_known_network() -> None:
    summary = known()
    expected = {
        "restored at attn.3": 0.75 / 0.95,
        "slope of restored on removed at attn.3": 0.75 / 0.95,
        "CE/DE at attn.3": 0.7,
        "attention sublayers with slope below 1": 5,
        "all attention slopes below 1 from": 2,
        "attention sublayers that respond": 1,
        "late MLPs that erase": 2,
        "  of these erase less": 1,
        # mlp.3 and mlp.4 hold down six times the effect, and a fifth of one of the six is let go.
        "  erasure that is taken back": 0.2 / 6,
    }
    for name, value in expected.items():
        found = finding(summary, name).value
        np.testing.assert_allclose([found.estimate, found.low, found.high], value, rtol=1e-6, err_msg=name)
    # The headline comes first, and what it is made of.
    first = [each.value.estimate for each in summary.findings[:5]]
    np.testing.assert_allclose(first, np.array([0.75, 0.75, 0.5, 0.2, 0.05]) / 0.95, rtol=1e-6)
    attn_3 = next(part for part in summary.components if part.ablated == "attn.3")
    np.testing.assert_allclose([attn_3.direct.estimate, attn_3.removed.estimate], [22, 0.95 * 22])
    np.testing.assert_allclose(attn_3.lost.estimate, 4.4)
    np.testing.assert_allclose([attn_3.slope.estimate, attn_3.r2.estimate], [0.7, 1], rtol=1e-6)
    parts = [attn_3.restored.estimate, attn_3.attention.estimate, attn_3.mlp.estimate, attn_3.norm.estimate]
    np.testing.assert_allclose(parts, np.array([0.75, 0.5, 0.2, 0.05]) / 0.95, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "other_sigma", "words", "other_words"),
    [
        ("own", "clean", "at each run’s own σ", "at the clean run’s σ"),
        ("clean", "own", "at the clean run’s σ", "at each run’s own σ"),
    ],
)
def test_a_summary_of_another_reading(sigma: Sigma, other_sigma: Sigma, words: str, other_words: str) -> None:
    results = synthetic.results(6, 40, 2, norm_share=0.5, readouts={"logit": -1, "placebo.0": -1})
    summary = summarise(results, FEW, "placebo.0", sigma)
    effects = per_prompt(results, "placebo.0", sigma)
    fit = compensation_regression(effects, FEW)
    for part in summary.components:
        np.testing.assert_equal(astuple(part.slope), fit["slope"].sel(ablated=part.ablated).values)
    text = printed(summary)
    assert f"Readout: placebo.0, {words}." in text
    # What depends on the reading is shown in both.
    held, line = best_sublayer_held_out(effects, "attn", FEW)
    again = budget(per_prompt(results, "placebo.0", other_sigma))
    expected = regression(held.take(again["contribution"]), held.take(again["compensated"]), FEW)["slope"]
    other = finding(summary, "slope of CE on DE, read otherwise")
    np.testing.assert_allclose(astuple(other.value), expected.values)
    mine = finding(summary, f"slope of CE on DE at {held.named}")
    np.testing.assert_allclose(astuple(mine.value), line["slope"].values)
    assert other.value != mine.value
    assert other.meaning == f"the same, {other_words}"


def test_every_sublayer_has_the_measures_own_numbers() -> None:
    results = synthetic.results(3, 10, 2)
    effects = per_prompt(results)
    summary = summarise(results, FEW)
    fit, shares = compensation_regression(effects, FEW), restoration(effects, FEW)
    assert [layer.ablated for layer in summary.components] == synthetic.labels(3)
    for layer in summary.components:
        np.testing.assert_equal(astuple(layer.slope), fit["slope"].sel(ablated=layer.ablated).values)
        np.testing.assert_equal(astuple(layer.norm), shares["norm"].sel(ablated=layer.ablated).values)
        mean = direct_effect(effects).sel(ablated=layer.ablated).mean()
        np.testing.assert_allclose(layer.direct.estimate, mean)
        np.testing.assert_allclose(layer.removed.estimate, -results["direct"].sel(ablated=layer.ablated).mean(), 1e-5)
        np.testing.assert_allclose(layer.lost.estimate, -results["total"].sel(ablated=layer.ablated).mean(), 1e-5)


def test_the_strongest_sublayer_can_be_compensated() -> None:
    results = synthetic.results(3, 6, 1)
    results["unembed"].loc[{"component": "mlp.2"}] = 50
    results["unembed"].loc[{"component": "mlp.0"}] = 20
    assert strongest_component(per_prompt(results), "mlp") == "mlp.0"


def test_the_strongest_head_is_known_without_its_direct_effect() -> None:
    results = synthetic.results(3, 6, 1, heads=2, read_heads=False)
    assert strongest_component(per_prompt(results), "neuron") is None
    results["direct"].loc[{"ablated": "head.1.1"}] = -50
    assert strongest_component(per_prompt(results), "head") == "head.1.1"
    assert finding(summarise(results, FEW), "restored at head.1.1")


@pytest.mark.parametrize(
    ("layers", "prompts", "options"),
    rest_slow(
        [
            (1, 1, {}),
            (1, 5, {"parallel": True}),
            (4, 5, {"ablated": ["attn.1"]}),
            (4, 5, {"ablated": ["mlp.1", "mlp.3"]}),
            (3, 5, {"parallel": True}),
            (3, 5, {"noise": 0, "patch_noise": 0}),
            (2, 5, {"heads": 2}),
            (2, 5, {"heads": 2, "read_heads": False, "by_patch": False}),
            (2, 5, {"heads": 2, "read_heads": False, "ablated": ["head.0.0", "head.1.1"]}),
            (3, 5, {"ablated": ["attn.0+mlp.1"]}),
            (3, 5, {"readouts": {"probe": 2}}),
        ],
        (1, 3),
    ),
)
def test_every_kind_of_run_has_a_summary(layers: int, prompts: int, options: dict) -> None:
    results = synthetic.results(layers, prompts, 1, **options)
    summary = summarise(results, FEW)
    assert printed(summarise_in_short(results, FEW), full=False) == printed(summary, full=False)
    text = printed(summary)
    for each in summary.findings:
        assert each.name in text
    for verdict in summary.verdicts:
        assert verdict.answer in text.lower()
    for width in (80, 100):
        lines = printed(summary, full=True, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert not any("…" in line for line in lines)
    for label in results["ablated"].values:
        assert str(label) in text
    assert "nan" not in text
    assert ("three answers each" in text) == any(each.asked for verdict in summary.verdicts for each in verdict.answers)


def test_rounding_is_not_removed() -> None:
    results = synthetic.results(3, 12, 2)
    results["direct"][..., 2, :] = -1e-7
    found = summarise(results, FEW).components[2]
    assert (found.removed.estimate, found.removed.low, found.removed.high) == (0, 0, 0)
    assert np.isnan(found.restored.estimate)
    assert not found.adds


def test_an_unfinished_result_is_refused() -> None:
    results = synthetic.results(2, 5, 2)
    results["unembed_ablated"][0, 4] = np.nan
    with pytest.raises(HydrascopeError, match="1 of 5 prompts"):
        summarise(results)


def test_where_nothing_is_removed_directly_only_losses_are_told() -> None:
    """As where components are ablated at earlier positions alone: no share of nothing is given."""
    results = synthetic.results(4, prompts=12)
    results["direct"] = 0 * results["direct"]
    summary = summarise(results, FEW)
    lost = -results["total"].isel(readout=0).mean(["prompt", "patch"])
    for found, kind in zip(summary.findings, ("attn", "mlp"), strict=True):
        of_kind = lost.isel(ablated=(lost["ablated_kind"] == kind).values)
        most = str(of_kind["ablated"].values[int(of_kind.values.argmax())])
        assert found.name == f"lost at {most}"
        assert found.value.estimate == pytest.approx(float(of_kind.max()))
    text = printed(summary)
    assert "nothing is removed directly" in text
    assert not any(heading in text for heading in ("slope ", "DE ~", "restored │", "DE:"))
    heads = synthetic.results(2, 5, 1, heads=PRINTED)
    text = printed(summarise(heads.assign(direct=0 * heads["direct"]), FEW))
    assert f"the {PRINTED} that lose most are listed; {PRINTED} are left out" in text


def test_the_most_lost_of_many_is_not_surely_lost_where_none_is() -> None:
    """With intervals that hold for one alone, two in three such runs would find some head that matters."""
    found = 0
    for seed in range(10):
        results = synthetic.results(2, 30, 1, seed, heads=20)
        noise = np.random.default_rng(seed).standard_normal(results["total"].shape)
        results = results.assign(direct=0 * results["direct"], total=(results["total"].dims, noise))
        most = next(each for each in summarise(results, FEW).findings if "head" in each.name)
        found += most.value.low > 0
    assert found <= 2


def test_warnings() -> None:
    results = synthetic.results(4, 12, 1)
    results.attrs |= {"dtype": "bfloat16", "worst_imbalance": 0.5, "prompt_count": 20}
    told = " ".join(summarise(results, FEW).warnings)
    assert "only 12 of 20 prompts are measured" in told
    assert "from fewer than 30 the intervals miss more often than they say" in told
    assert "computed in bfloat16" in told
    alone = summarise(synthetic.results(4, 1, 1), FEW).warnings
    assert any(each.startswith("only 1 prompt:") for each in alone)
    many = synthetic.results(4, 40, 1)
    many.attrs |= {"dtype": "float32", "worst_imbalance": 1e-6}
    assert not any("prompts" in each or "computed" in each for each in summarise(many, FEW).warnings)
