"""Whether prompts agree in who responds: against SciPy pair by pair, and on profiles whose agreement is known."""

from itertools import combinations

import numpy as np
import pytest
import synthetic
from scipy import stats

from hydrascope.measures import change, per_prompt, profile_agreement
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(scope="module")
def results():
    return synthetic.results(4, 12, 2)


def test_the_mean_correlation_of_pairs(results):
    effects = per_prompt(results)
    groups = ["a", "b", "c"] * 4
    found = profile_agreement(effects, "attn.1", groups, shuffles=20)["agreement"]
    below = effects["downstream"].sel(ablated="attn.1").values
    profiles = change(effects).sel(ablated="attn.1").transpose("prompt", ...).values[:, below]
    pairs = {(i, j): stats.pearsonr(profiles[i], profiles[j]).statistic for i, j in combinations(range(12), 2)}
    within = np.mean([value for (i, j), value in pairs.items() if groups[i] == groups[j]])
    between = np.mean([value for (i, j), value in pairs.items() if groups[i] != groups[j]])
    np.testing.assert_allclose(found, [within, between, within - between], atol=1e-12)


def with_profiles(results, profiles):
    """`results` in which the sublayers downstream of attn.0 respond by [prompt, sublayer] `profiles`."""
    changed = results.copy(deep=True)
    row = list(changed["ablated"].values).index("attn.0")
    below = np.flatnonzero(changed["downstream"].values[row])
    clean = changed["unembed"].values[0][:, below]
    changed["unembed_ablated"].values[0][:, row, below] = clean + profiles
    return changed


def test_agreement_that_is_known_stands_out_from_chance(results):
    generator = np.random.default_rng(0)
    groups, layers = [0, 1] * 6, int(results["downstream"].sel(ablated="attn.0").sum())
    profiles = generator.normal(size=(2, layers))[groups] + 0.1 * generator.normal(size=(12, layers))
    found = profile_agreement(per_prompt(with_profiles(results, profiles)), "attn.0", groups, shuffles=200)
    assert float(found["agreement"].sel(pairs="within")) > 0.9
    more = found["agreement"] > found["chance"].sel(bound="high")
    assert bool(more.sel(pairs=["within", "within − between"]).all())


@pytest.mark.slow
def test_where_there_is_none_chance_holds_it_as_often_as_it_says(results):
    generator = np.random.default_rng(1)
    groups, layers = [0, 1] * 6, int(results["downstream"].sel(ablated="attn.0").sum())
    inside = []
    for _ in range(40):
        noise = with_profiles(results, generator.normal(size=(12, layers)))
        found = profile_agreement(per_prompt(noise), "attn.0", groups, shuffles=100)
        low, high = (found["chance"].sel(bound=bound) for bound in ("low", "high"))
        inside.append(((low <= found["agreement"]) & (found["agreement"] <= high)).values)
    # 95% of 40 is 38; fewer than 32 would come once in a thousand times.
    assert (np.sum(inside, 0) >= 32).all()


def test_one_group_has_nothing_between(results):
    found = profile_agreement(per_prompt(results), "attn.1", shuffles=5)["agreement"]
    assert np.isfinite(found.sel(pairs="within"))
    assert np.isnan(found.sel(pairs="between"))


def test_what_cannot_be_asked(results):
    effects = per_prompt(results)
    with pytest.raises(HydrascopeError, match=r"attn\.9 wasn't ablated"):
        profile_agreement(effects, "attn.9")
    with pytest.raises(HydrascopeError, match="3 group names were given for 12 prompts"):
        profile_agreement(effects, "attn.1", ["a", "b", "c"])
    with pytest.raises(HydrascopeError, match=r"mlp\.3 has 0 downstream sublayers"):
        profile_agreement(effects, "mlp.3")
