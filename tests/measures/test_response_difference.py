"""The difference of two results' responses: plain means, and paired bounds that are narrower where prompts agree."""

import numpy as np
import pytest
import synthetic

from hydrascope.measures import Bootstrap, per_prompt, response_difference, responses
from hydrascope.utils.errors import HydrascopeError

SOME = Bootstrap(resamples=200)


def test_it_is_the_difference_of_plain_means() -> None:
    first, second = synthetic.results(3, 20, 2, noise=0.3), synthetic.results(3, 20, 2, noise=0.3, seed=5)
    found = response_difference(per_prompt(first), per_prompt(second), SOME, paired=False)
    moved = [
        (each["unembed_ablated"].values[0].astype(float) - each["unembed"].values[0, :, None].astype(float)).mean(0)
        for each in (first, second)
    ]
    expected = np.where(first["downstream"].values, moved[1] - moved[0], np.nan)
    np.testing.assert_allclose(found.sel(bound="estimate"), expected, atol=1e-6)
    low, high = (found.sel(bound=bound).values for bound in ("low", "high"))
    downstream = first["downstream"].values
    assert (low[downstream] <= expected[downstream] + 1e-9).all()
    assert (high[downstream] >= expected[downstream] - 1e-9).all()


def test_paired_bounds_use_that_prompts_are_the_same() -> None:
    first = synthetic.results(3, 40, 1, noise=0.5)
    second = first.copy(deep=True)
    shift = 0.1 + 0.01 * np.random.default_rng(0).normal(size=40)
    second["unembed_ablated"].loc[{"ablated": "attn.1", "component": "mlp.2"}] += shift
    effects = per_prompt(first), per_prompt(second)
    paired, apart = (response_difference(*effects, SOME, paired=same) for same in (True, False))
    cell = {"ablated": "attn.1", "component": "mlp.2"}
    assert paired.sel(bound="estimate", **cell) == pytest.approx(shift.mean(), abs=1e-5)
    assert paired.sel(bound="low", **cell) > 0.09
    assert apart.sel(bound="low", **cell) < paired.sel(bound="low", **cell) - 0.05
    # Where nothing differs, the difference is 0 without doubt.
    assert float(abs(paired.sel(ablated="attn.0")).max()) < 1e-6
    with pytest.raises(HydrascopeError, match="ablated components differ"):
        response_difference(effects[0], effects[1].isel(ablated=[0]), SOME, paired=True)


def test_of_a_result_and_one_without_a_response_it_is_the_response() -> None:
    results = synthetic.results(3, 25, 1, noise=0.2)
    still = results.copy(deep=True)
    still["unembed_ablated"] = still["unembed_ablated"] * 0 + still["unembed"]
    found = response_difference(per_prompt(still), per_prompt(results), SOME, paired=True)
    np.testing.assert_allclose(found, responses(per_prompt(results), SOME), atol=2e-5)
