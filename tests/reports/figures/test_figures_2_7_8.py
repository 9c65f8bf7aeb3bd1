"""Show all prompts and sublayers in figures 2, 7 and 8, with the measures' own numbers."""

import numpy as np
import synthetic
import xarray as xr
from drawn_figures import curve, in_order, panel, points
from matplotlib.collections import LineCollection

from hydrascope.measures import (
    Bootstrap,
    best_sublayer,
    compensation,
    compensation_regression,
    direct_effect,
    per_prompt,
    regression,
)
from hydrascope.reports.figures import figure2, figure7, figure8
from hydrascope.reports.figures.figure7 import _equation

FEW = Bootstrap(resamples=30)


def test_figure_2_shows_every_prompt_the_mean_and_the_agreement() -> None:
    results = synthetic.results(4, 9, 2)
    effects = per_prompt(results)
    figure = figure2(effects, FEW)
    direct, lost = direct_effect(effects), -effects["total"]
    axes = figure.get_axes()
    for values, first in ((direct, 0), (lost, 2)):
        for k in (0, 1):
            part = values[:, k::2]
            assert curve(axes[first + k], part.mean("prompt"))
            faint = next(each for each in axes[first + k].collections if isinstance(each, LineCollection))
            np.testing.assert_allclose([segment[:, 1] for segment in faint.get_segments()], part)
    np.testing.assert_allclose(points(panel(figure, "c")), in_order(direct, lost))
    d, e = panel(figure, "d"), panel(figure, "e")
    for a in (0, 1):
        exceeding = (direct[:, a::2] > lost[:, a::2]).mean("prompt")
        assert curve(e, exceeding)
        r = [np.corrcoef(direct[:, i], lost[:, i])[0, 1] for i in range(a, 8, 2)]
        assert curve(d, np.array(r))


def test_figure_7_shows_all_sublayers_the_best_and_the_regression() -> None:
    results = synthetic.results(4, 15, 2)
    effects = per_prompt(results)
    figure = figure7(effects, FEW)
    direct, response = direct_effect(effects), compensation(effects)["compensation"]
    np.testing.assert_allclose(points(panel(figure, "a")), in_order(direct[:, ::2], response[:, ::2]))
    # Nothing is downstream of the last MLP.
    np.testing.assert_allclose(points(panel(figure, "c")), in_order(direct[:, 1:-1:2], response[:, 1:-1:2]))
    fit = compensation_regression(effects, FEW).sel(bound="estimate")
    assert curve(panel(figure, "d"), fit["slope"][::2])
    explained = next(axes for axes in figure.get_axes() if axes.get_ylabel() == "R²")
    for start in (0, 1):
        assert curve(panel(figure, "d"), fit["slope"][start::2])
        assert curve(explained, fit["r2"][start::2])
    best = best_sublayer(effects, "either")
    assert best is not None
    b = panel(figure, "b")
    assert b.get_title().startswith(best)
    np.testing.assert_allclose(points(b), in_order(direct.sel(ablated=best), response.sel(ablated=best)))


def test_figure_8_shows_both_terms_of_the_response() -> None:
    results = synthetic.results(4, 15, 2)
    effects = per_prompt(results)
    figure = figure8(effects, FEW)
    direct, response = direct_effect(effects), compensation(effects)
    # Nothing is downstream of the last MLP.
    for label in (*(f"attn.{block}" for block in range(4)), *(f"mlp.{block}" for block in range(3))):
        axes = panel(figure, f"{label} ablated")
        x, both = direct.sel(ablated=label), [response[name].sel(ablated=label) for name in ("attention", "mlp")]
        np.testing.assert_allclose(points(axes), in_order(xr.concat([x, x], "prompt"), xr.concat(both, "prompt")))
    slopes = [axes for axes in figure.get_axes() if axes.get_title() in ("Attention ablated", "MLP ablated")]
    explained = [axes for axes in figure.get_axes() if axes.get_xlabel().startswith("Block of the ablated")]
    explained = [axes for axes in explained if axes.get_ylim() == (-0.03, 1.03)]
    for chosen, slope, share in zip((slice(0, 8, 2), slice(1, 7, 2)), slopes, explained, strict=True):
        for name in ("attention", "mlp"):
            fit = regression(direct[:, chosen], response[name][:, chosen], FEW).sel(bound="estimate")
            assert curve(slope, fit["slope"])
            assert curve(share, fit["r2"])


def test_a_slope_that_rounds_to_0_has_no_sign() -> None:
    line = xr.Dataset(
        {"slope": ("bound", [-0.004, -0.012, 0.002]), "r2": ("bound", [0.25, 0.1, 0.3])},
        {"bound": ["estimate", "low", "high"]},
    )
    assert _equation(line) == "slope 0.00 [−0.01, 0.00], R² = 0.25"
    line["slope"][1:] = np.nan
    assert _equation(line) == "slope 0.00, R² = 0.25"
