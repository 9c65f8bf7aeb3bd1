"""The summary: the measures' numbers under readable names, complete and safe to print."""

import io
from dataclasses import astuple

import numpy as np
import pytest
import synthetic
from rich.console import Console

from hydrascope.errors import HydrascopeError
from hydrascope.measures import (
    Bootstrap,
    Sigma,
    compensation_regression,
    direct_effect,
    per_prompt,
    restoration,
)
from hydrascope.summary import PRINTED, Finding, Interval, Summary, render, strongest_part, summarise, written

FEW = Bootstrap(resamples=40)


def printed(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def finding(summary: Summary, name: str) -> Finding:
    return next(each for each in summary.findings if each.name == name)


def known() -> Summary:
    """Six layers in which attn.3 does most, attn.4 gives back half of it and the erasing mlp.4 a fifth; the norm gives
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


def test_findings_of_a_known_network() -> None:
    summary = known()
    expected = {
        "restored at attn.3": 0.75 / 0.95,
        "restored at attn.3, slope": 0.75 / 0.95,
        "compensated on average at attn.3": 0.7,
        "attention layers with slope below 1": 5,
        "slopes below 1 from layer": 2,
        "attention layers that respond": 1,
        "late MLPs that erase": 2,
        "of these attenuated": 1,
        # mlp.3 and mlp.4 hold down six times the effect, and a fifth of one of the six is let go.
        "erasure that lets go": 0.2 / 6,
    }
    for name, value in expected.items():
        found = finding(summary, name).value
        np.testing.assert_allclose([found.estimate, found.low, found.high], value, rtol=1e-6, err_msg=name)
    # The headline comes first, and what it is made of.
    first = [each.value.estimate for each in summary.findings[:5]]
    np.testing.assert_allclose(first, np.array([0.75, 0.75, 0.5, 0.2, 0.05]) / 0.95, rtol=1e-6)
    attn_3 = next(part for part in summary.parts if part.ablated == "attn.3")
    np.testing.assert_allclose([attn_3.direct.estimate, attn_3.removed.estimate], [22, 0.95 * 22])
    np.testing.assert_allclose(attn_3.lost.estimate, 4.4)
    np.testing.assert_allclose([attn_3.slope.estimate, attn_3.r2.estimate], [0.7, 1], rtol=1e-6)
    parts = [attn_3.restored.estimate, attn_3.attention.estimate, attn_3.mlp.estimate, attn_3.norm.estimate]
    np.testing.assert_allclose(parts, np.array([0.75, 0.5, 0.2, 0.05]) / 0.95, rtol=1e-6)


@pytest.mark.parametrize(
    ("sigma", "other_sigma", "words", "other_words"),
    [
        ("own", "clean", "at each run’s own σ", "at the clean run’s σ"),
        ("clean", "own", "at the clean run’s σ", "at each run’s own σ"),
    ],
)
def test_a_summary_of_another_reading(sigma: Sigma, other_sigma: Sigma, words: str, other_words: str) -> None:
    results = synthetic.results(3, 10, 2, norm_share=0.5, readouts={"logit": -1, "placebo.0": -1})
    summary = summarise(results, FEW, "placebo.0", sigma)
    effects = per_prompt(results, "placebo.0", sigma)
    fit = compensation_regression(effects, FEW)
    for part in summary.parts:
        np.testing.assert_equal(astuple(part.slope), fit["slope"].sel(ablated=part.ablated).values)
    text = printed(summary)
    assert f"Readout: placebo.0, {words}." in text
    # What depends on the reading is shown in both.
    best = next(each.name for each in summary.findings if each.name.startswith("R² at attn")).split()[-1]
    again = compensation_regression(per_prompt(results, "placebo.0", other_sigma), FEW)
    other = finding(summary, f"compensated at {best}, read otherwise")
    np.testing.assert_allclose(astuple(other.value), again["slope"].sel(ablated=best).values)
    assert other.value != finding(summary, f"compensated at {best}").value
    assert other.meaning == f"the same, {other_words}"
    assert summarise(effects, FEW).parts[0].slope == summary.parts[0].slope


def test_only_the_strongest_heads_are_printed() -> None:
    results = synthetic.results(2, 5, 1, heads=PRINTED, read_heads=False)
    summary = summarise(results, FEW)
    text = printed(summary)
    heads = [part for part in summary.parts if part.kind == "head"]
    assert len(heads) == 2 * PRINTED
    in_order = sorted(heads, key=lambda part: part.removed.estimate, reverse=True)
    table = text[text.index("Ablated parts") :]
    assert all(f" {part.ablated} " in table for part in in_order[:PRINTED])
    assert not any(f" {part.ablated} " in table for part in in_order[PRINTED:])
    assert f"the {PRINTED} that remove most; {PRINTED} are left out" in text


def test_every_layer_has_the_measures_own_numbers() -> None:
    results = synthetic.results(3, 10, 2)
    summary = summarise(results, FEW)
    fit, shares = compensation_regression(results, FEW), restoration(results, FEW)
    assert [layer.ablated for layer in summary.parts] == synthetic.labels(3)
    for layer in summary.parts:
        np.testing.assert_equal(astuple(layer.slope), fit["slope"].sel(ablated=layer.ablated).values)
        np.testing.assert_equal(astuple(layer.norm), shares["norm"].sel(ablated=layer.ablated).values)
        mean = direct_effect(results).sel(ablated=layer.ablated).mean()
        np.testing.assert_allclose(layer.direct.estimate, mean)
        np.testing.assert_allclose(layer.removed.estimate, -results["direct"].sel(ablated=layer.ablated).mean(), 1e-5)
        np.testing.assert_allclose(layer.lost.estimate, -results["total"].sel(ablated=layer.ablated).mean(), 1e-5)


def test_the_strongest_layer_can_be_compensated() -> None:
    results = synthetic.results(3, 6, 1)
    results["unembed"].loc[{"component": "mlp.2"}] = 50
    results["unembed"].loc[{"component": "mlp.0"}] = 20
    assert strongest_part(per_prompt(results), "mlp") == "mlp.0"


def test_the_strongest_head_is_known_without_its_direct_effect() -> None:
    results = synthetic.results(3, 6, 1, heads=2, read_heads=False)
    assert strongest_part(per_prompt(results), "neuron") is None
    results["direct"].loc[{"ablated": "head.1.1"}] = -50
    assert strongest_part(per_prompt(results), "head") == "head.1.1"
    assert finding(summarise(results, FEW), "restored at head.1.1")


@pytest.mark.parametrize(
    ("layers", "prompts", "options"),
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
)
def test_every_kind_of_run_has_a_summary(layers: int, prompts: int, options: dict) -> None:
    results = synthetic.results(layers, prompts, 1, **options)
    summary = summarise(results, FEW)
    text = printed(summary)
    for each in summary.findings:
        assert each.name in text
    for label in results["ablated"].values:
        assert str(label) in text
    assert "nan" not in text


def test_an_unfinished_result_is_refused() -> None:
    results = synthetic.results(2, 5, 2)
    results["unembed_ablated"][0, 4] = np.nan
    with pytest.raises(HydrascopeError, match="1 of 5 prompts"):
        summarise(results)


def test_names_are_printed_as_they_are() -> None:
    results = synthetic.results(2, 5, 2)
    results.attrs["model"] = "[red]folder[/red]"
    assert "[red]folder[/red]" in printed(summarise(results, FEW))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (Interval(0.714, 0.68, 0.7449), 2, "0.71 [0.68, 0.74]"),
        (Interval(-0.001, -0.3, 0.2), 2, "0.00 [−0.30, 0.20]"),
        (Interval(23, 22, 24), 0, "23 [22, 24]"),
        (Interval(0.5, float("nan"), float("nan")), 2, "0.50"),
        (Interval(float("nan"), float("nan"), float("nan")), 2, "–"),
    ],
)
def test_an_interval_as_written(value: Interval, digits: int, text: str) -> None:
    assert written(value, digits) == text


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
    assert not any(heading in text for heading in ("slope ", "DE ~", "restored │"))
