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
    average_patches,
    compensation_regression,
    direct_effect,
    restoration,
)
from hydrascope.summary import Finding, Interval, Summary, render, strongest_layer, summarise, written

FEW = Bootstrap(resamples=40)


def printed(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def finding(summary: Summary, name: str) -> Finding:
    return next(each for each in summary.findings if each.name == name)


def known() -> Summary:
    """Six layers in which attn.3 does most, attn.4 gives back half of it and the erasing mlp.4 a fifth."""
    shares = np.zeros((12, 12))
    index = synthetic.labels(6).index
    shares[index("attn.3"), [index("attn.4"), index("mlp.4")]] = 0.5, 0.2
    shares[index("attn.1"), index("attn.2")] = 1.5
    results = synthetic.results(6, 25, 3, shares=shares, noise=0, patch_noise=0, norm_share=0.1)
    lift = 10 + np.arange(25.0, dtype=np.float32)
    results["unembed"].loc[{"component": "attn.3"}] = lift
    for label, height in (("attn.3", lift), ("mlp.4", -5 * lift), ("mlp.3", -lift), ("mlp.5", 2 + 0 * lift)):
        after = results["unembed_ablated"].loc[{"component": label}]
        results["unembed"].loc[{"component": label}] = height
        after[:] = height[:, None, None]
    results["unembed_ablated"].loc[{"ablated": "attn.3", "component": "attn.3"}] = 0
    results["unembed_ablated"].loc[{"ablated": "attn.3", "component": "mlp.4"}] = (-4.8 * lift)[:, None]
    backup = results["unembed"].sel(component="attn.4").values + 0.5 * lift
    results["unembed_ablated"].loc[{"ablated": "attn.3", "component": "attn.4"}] = backup[:, None]
    results["norm"].loc[{"ablated": "attn.3"}] = (0.1 * lift)[:, None]
    results["total"].loc[{"ablated": "attn.3"}] = (-0.2 * lift)[:, None]
    return summarise(results, FEW)


def test_findings_of_a_known_network() -> None:
    summary = known()
    expected = {
        "restored on average at attn.3": 0.7,
        "norm’s share at attn.3": 0.1,
        "lost at attn.3": 0.2,
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
        np.testing.assert_allclose([found.estimate, found.low, found.high], value, rtol=1e-4, err_msg=name)
    attn_3 = next(layer for layer in summary.layers if layer.ablated == "attn.3")
    np.testing.assert_allclose(attn_3.direct.estimate, 22)
    np.testing.assert_allclose(attn_3.cost.estimate, 4.4, rtol=1e-5)
    np.testing.assert_allclose([attn_3.slope.estimate, attn_3.r2.estimate], [0.7, 1], rtol=1e-4)
    shares = [attn_3.attention.estimate, attn_3.mlp.estimate, attn_3.norm.estimate, attn_3.lost.estimate]
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.1, 0.2], rtol=1e-4)


def test_every_layer_has_the_measures_own_numbers() -> None:
    results = synthetic.results(3, 10, 2)
    summary = summarise(results, FEW)
    fit, shares = compensation_regression(results, FEW), restoration(results, FEW)
    assert [layer.ablated for layer in summary.layers] == synthetic.labels(3)
    for layer in summary.layers:
        np.testing.assert_equal(astuple(layer.slope), fit["slope"].sel(ablated=layer.ablated).values)
        np.testing.assert_equal(astuple(layer.norm), shares["norm"].sel(ablated=layer.ablated).values)
        mean = direct_effect(results).sel(ablated=layer.ablated).mean()
        np.testing.assert_allclose(layer.direct.estimate, mean)


def test_the_strongest_layer_can_be_compensated() -> None:
    results = synthetic.results(3, 6, 1)
    results["unembed"].loc[{"component": "mlp.2"}] = 50
    results["unembed"].loc[{"component": "mlp.0"}] = 20
    assert strongest_layer(average_patches(results), "mlp") == "mlp.0"


@pytest.mark.parametrize(
    ("layers", "prompts", "options"),
    [
        (1, 1, {}),
        (1, 5, {"parallel": True}),
        (4, 5, {"ablated": ["attn.1"]}),
        (4, 5, {"ablated": ["mlp.1", "mlp.3"]}),
        (3, 5, {"parallel": True}),
        (3, 5, {"noise": 0, "patch_noise": 0}),
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
    results["unembed_ablated"][4] = np.nan
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
