"""Shapley values: by the subset formula, by plain forward passes, and on the phantom, where they are known by hand."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from brute import combinations_of, plain_effects, shapley_values
from hypothesis import given
from hypothesis import strategies as st
from plain import Plain, Reader, loaded
from scipy import stats
from tiny import tiny

import hydrascope as hs
from hydrascope.analyses.shapley import antithetic, marginal_effects, standard_error, visited_subsets
from hydrascope.models import phantom
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
EIGHT = ("attn.0", "mlp.0", "head.1.0", "head.1.2", "mlp.1", "head.2.1", "head.2.3", "neuron.2.7")


def random_game(parts: int, seed: int, *shape: int) -> dict[frozenset[int], np.ndarray]:
    """A worth of every combination, 0 of none."""
    generator = np.random.default_rng(seed)
    return {each: generator.normal(size=shape) * bool(each) for each in combinations_of(parts)}


def in_orders(game: dict[frozenset[int], np.ndarray], orders: np.ndarray) -> np.ndarray:
    """`[…, pair, component]` what the components are credited with in these orders."""
    ablated, place = visited_subsets(orders)
    effects = np.stack([game[frozenset(np.flatnonzero(row).tolist())] for row in ablated], -1)
    return marginal_effects(effects, orders, place)


def plain_worth(model, prompts: list[list[int]], ablation: hs.Resample, parts: Sequence[str]) -> dict:
    """`[prompt]` the mean total effect over patches of every combination, by plain forward passes."""

    def total(clean: Plain, ablated: Plain) -> float:
        read = Reader.of_logit(model, int(clean.logits.argmax()))
        return read.whole(ablated) - read.whole(clean)

    sources = hs.sweep(model, prompts, ablation, ablate="attn.0")["patch_prompt"].values
    return {each: values.mean(1) for each, values in plain_effects(model, prompts, sources, parts, total).items()}


@given(st.integers(1, 8), st.integers(1, 10), st.integers(0, 99))
def test_orders_come_with_their_reverses(parts, pairs, seed):
    orders = antithetic(parts, 2 * pairs, seed)
    assert (np.sort(orders) == np.arange(parts)).all()
    assert (orders[1::2] == orders[::2, ::-1]).all()
    assert (antithetic(parts, 2 * pairs + 4, seed)[: 2 * pairs] == orders).all()


def test_orders_are_drawn_evenly():
    first = antithetic(3, 6000, 0)[::2]
    counts = [(first == order).all(1).sum() for order in permutations(range(3))]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (first != antithetic(3, 6000, 1)[::2]).any()


@given(st.integers(1, 5), st.integers(0, 99))
def test_all_orders_give_the_subset_formula(parts, seed):
    game = random_game(parts, seed, 2)
    forward = np.array(list(permutations(range(parts))))
    orders = np.stack([forward, forward[:, ::-1]], 1).reshape(-1, parts)
    np.testing.assert_allclose(in_orders(game, orders).mean(-2), shapley_values(game, parts), atol=1e-12)


@given(st.integers(1, 6), st.integers(0, 99))
def test_one_pair_of_orders_is_exact_where_components_interact_by_twos(parts, seed):
    generator = np.random.default_rng(seed)
    own, upper = generator.normal(size=parts), np.triu(generator.normal(size=(parts, parts)), 1)
    game = {}
    for each in combinations_of(parts):
        members = sorted(each)
        game[each] = np.asarray(own[members].sum() + upper[np.ix_(members, members)].sum())
    found = in_orders(game, antithetic(parts, 2, seed)).mean(-2)
    np.testing.assert_allclose(found, own + (upper + upper.T).sum(1) / 2, atol=1e-12)


def test_standard_errors_cover():
    """Over many draws of orders the errors are as large as they are said to be, component by component."""
    game = random_game(5, 7)
    exact = shapley_values(game, 5)
    draws = [in_orders(game, antithetic(5, 32, seed)) for seed in range(1000)]
    errors = np.array([pairs.mean(0) - exact for pairs in draws])
    said = np.array([standard_error(pairs) for pairs in draws])
    np.testing.assert_allclose((errors**2).mean(0), (said**2).mean(0), rtol=0.15)
    covered = (abs(errors) <= stats.t(15).ppf(0.975) * said).mean(0)
    assert ((covered > 0.92) & (covered < 0.98)).all()


def test_against_plain_forward_passes():
    """The very orders that were drawn, walked one by one over plain runs, every patch."""
    model, ablation, parts = loaded("gpt2"), hs.Resample(2, seed=3), EIGHT[1:5]
    worth = plain_worth(model, PROMPTS, ablation, parts)
    found = hs.analyses.shapley(model, PROMPTS, ablation, components=parts, orders=6, seed=1)
    pairs = np.zeros((3, len(PROMPTS), len(parts)))
    for number, order in enumerate(antithetic(len(parts), 6, seed=1)):
        gone: frozenset[int] = frozenset()
        for part in order.tolist():
            pairs[number // 2, :, part] += (worth[gone | {part}] - worth[gone]) / 2
            gone |= {part}
    np.testing.assert_allclose(found["shapley"][0], pairs.mean(0), atol=1e-9)
    np.testing.assert_allclose(found["everything"][0], worth[gone], atol=1e-9)
    np.testing.assert_allclose(found["standard_error"][0], pairs.std(0, ddof=1) / 3**0.5, atol=1e-9)
    np.testing.assert_allclose(found["mean_standard_error"][0], pairs.mean(1).std(0, ddof=1) / 3**0.5, atol=1e-9)


def test_random_orders_come_close_to_all_combinations():
    """Of eight components, by plain forward passes: all 256."""
    model, ablation, prompts = loaded("gpt2"), hs.Resample(1), PROMPTS[:2]
    exact = shapley_values(plain_worth(model, prompts, ablation, EIGHT), 8)
    found = hs.analyses.shapley(model, prompts, ablation, components=EIGHT, orders=64).isel(readout=0)
    off, error = found["shapley"].values - exact, found["standard_error"].values
    assert (abs(off) <= 4 * error + 1e-9).all()
    assert (abs(off.mean(0)) <= 4 * found["mean_standard_error"].values + 1e-9).all()
    # Close enough to tell the components apart.
    assert abs(off).max() < 0.05 * np.ptp(exact, 1).min()


@pytest.mark.parametrize("case", ["llama", "gpt_neox", "gemma2", "gptj"])
def test_nothing_is_left_over(case):
    """Σ φ = the effect of ablating everything, per readout, whatever the components, positions and patches."""
    model = tiny(case)
    parts = "attn.0,heads.1,mlp.2"
    options = {"at": [-2, -1], "readouts": [hs.Logit(), hs.Logit(7)]}
    found = hs.analyses.shapley(model, PROMPTS, hs.Resample(2), components=parts, orders=4, **options)
    together = "+".join(found["component"].values)
    whole = hs.sweep(model, PROMPTS, hs.Resample(2), ablate=together, engine="reference", **options)
    expected = whole["total"].isel(ablated=0).mean("patch")
    np.testing.assert_allclose(found["everything"], expected, atol=1e-5)
    np.testing.assert_allclose(found["shapley"].sum("component"), found["everything"], atol=1e-12)


def test_one_component_is_worth_its_total_effect():
    model = tiny("gpt2")
    found = hs.analyses.shapley(model, PROMPTS, hs.Zero(), components="mlp.1", orders=2)
    alone = hs.sweep(model, PROMPTS, hs.Zero(), ablate="mlp.1")["total"].isel(ablated=0, patch=0)
    np.testing.assert_allclose(found["shapley"].isel(component=0), alone, atol=1e-12)
    # One pair of orders tells nothing of others.
    assert np.isnan(found["standard_error"]).all()


def test_prompts_share_their_orders():
    model = tiny("gpt2")
    both = hs.analyses.shapley(model, PROMPTS, hs.Zero(), components="attn,mlp", orders=4)
    one = hs.analyses.shapley(model, PROMPTS[1:2], hs.Zero(), components="attn,mlp", orders=4)
    np.testing.assert_allclose(both["shapley"].isel(prompt=[1]), one["shapley"], atol=1e-12)
    other = hs.analyses.shapley(model, PROMPTS, hs.Zero(), components="attn,mlp", orders=4, seed=1)
    assert float(abs(both["shapley"] - other["shapley"]).max()) > 1e-6


def test_on_the_phantom_credit_is_shared_with_the_backups():
    """What a backup restores is credited half to it and half to what it backs up; what does nothing gets nothing."""
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(40)
    parts = [phantom.SOURCE, phantom.UNWATCHED, *phantom.BACKUPS, "head.2.0", "attn.5"]
    found = hs.analyses.shapley(model, prompts, hs.Zero(), components=parts, orders=4).isel(readout=0)
    alone = hs.sweep(model, prompts, hs.Zero(), ablate=parts, read="heads").isel(readout=0, patch=0)
    values, removed = found["shapley"], -alone["direct"].sel(ablated=phantom.SOURCE)
    doubt = found["text"].str.startswith("perhaps").values
    shares = {
        name: share * np.where(doubt, 0.8, 1.2) ** (name == "head.4.1") for name, share in phantom.BACKUPS.items()
    }
    tolerance = 4e-3 * float(removed.max())
    for name, share in shares.items():
        expected = -alone["unembed"].sel(component=name) - share / 2 * removed
        assert float(abs(values.sel(component=name) - expected).max()) < tolerance
    expected = -removed * (1 - sum(shares.values()) / 2)
    assert float(abs(values.sel(component=phantom.SOURCE) - expected).max()) < tolerance
    expected = alone["direct"].sel(ablated=phantom.UNWATCHED)
    assert float(abs(values.sel(component=phantom.UNWATCHED) - expected).max()) < tolerance
    assert float(abs(values.sel(component=["head.2.0", "attn.5"])).max()) < 1e-6 * float(removed.max())


def test_what_cannot_be_asked():
    model = tiny("gpt2")
    for orders in (0, 3, -2):
        with pytest.raises(HydrascopeError, match=f"{orders} orders can't be paired"):
            hs.analyses.shapley(model, PROMPTS, orders=orders)
    with pytest.raises(HydrascopeError, match="invalid seed -1"):
        hs.analyses.shapley(model, PROMPTS, seed=-1)
    with pytest.raises(HydrascopeError, match=r"all of attn\.1"):
        hs.analyses.shapley(model, PROMPTS, components="attn.1,head.1.0", orders=2)
    with pytest.raises(
        HydrascopeError, match=r"needs 24,385 overrides a prompt.*give fewer orders than 64, or fewer components"
    ):
        hs.analyses.shapley(
            model, PROMPTS, components=[f"neuron.{block}.{n}" for block in range(3) for n in range(128)][:382]
        )
