"""Responsibility: on made votes, by plain forward passes over all combinations, and on the phantom, by hand."""

import numpy as np
import pytest
from brute import combinations_of, plain_effects
from hypothesis import given
from hypothesis import strategies as st
from plain import Plain, loaded
from tiny import tiny

import hydrascope as hs
from hydrascope.analyses.responsibility import contingencies
from hydrascope.models import phantom
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16], [20, 21]]
PARTS = ["attn.0", "mlp.0", "head.1.0", "head.1.2", "mlp.2"]


def smallest(changed: dict[frozenset[int], np.ndarray], part: int, most: int, at: tuple[int, ...]) -> int:
    """The size of the smallest set of others with which `part` decides, of one case; −1 without."""
    sizes = [
        len(others)
        for others in changed
        if part not in others and len(others) <= most and not changed[others][at] and changed[others | {part}][at]
    ]
    return min(sizes, default=-1)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(1, 7))
def test_a_vote(voters, most, needed):
    """Where the outcome changes once enough are gone, everyone is decisive once all but one of these are."""
    sets = [each for each in combinations_of(voters) if 1 <= len(each) <= most + 1]
    found = contingencies(np.array([len(each) >= needed for each in sets]), sets, voters)
    assert (found == (needed - 1 if needed <= min(most + 1, voters) else -1)).all()


def test_unequal_voters():
    """0 decides alone, 1 and 2 stand in for each other, so do 3, 4 and 5, and 6 never counts."""
    sets = [each for each in combinations_of(7) if 1 <= len(each) <= 3]
    changed = np.array([any(cause <= gone for cause in ({0}, {1, 2}, {3, 4, 5})) for gone in sets])
    assert contingencies(changed, sets, 7).tolist() == [0, 1, 1, 2, 2, 2, -1]


def test_bringing_the_answer_back_is_no_cause():
    sets = [frozenset({0}), frozenset({1}), frozenset({0, 1})]
    assert contingencies(np.array([True, False, False]), sets, 2).tolist() == [0, -1]


@pytest.fixture(scope="module")
def plainly():
    """A tiny gpt2, an ablation, and whether each combination of `PARTS` changes the likeliest token."""
    model, ablation = loaded("gpt2", seed=4), hs.Resample(2)
    sources = hs.sweep(model, PROMPTS, ablation, ablate="attn.0")["patch_prompt"].values

    def changes(clean: Plain, ablated: Plain) -> bool:
        return bool(clean.logits.argmax() != ablated.logits.argmax())

    return model, ablation, plain_effects(model, PROMPTS, sources, PARTS, changes)


@pytest.mark.parametrize("most", [0, 1, 2, 9])
def test_against_plain_forward_passes(plainly, most):
    model, ablation, changed = plainly
    found = hs.analyses.responsibility(model, PROMPTS, ablation, components=PARTS, most=most)
    shape = (len(PROMPTS), 2, len(PARTS))
    sizes = np.array([smallest(changed, at[2], most, at[:2]) for at in np.ndindex(shape)]).reshape(shape)
    np.testing.assert_array_equal(found["contingency"], sizes)
    degree = np.array([0.0 if size < 0 else 1 / (1 + size) for size in sizes.ravel()]).reshape(shape)
    np.testing.assert_allclose(found["responsibility"], degree.mean(1), atol=1e-12)
    assert most < 2 or {-1, 0, 1} <= set(sizes.ravel()), "the example tells nothing apart"


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
def test_on_the_phantom_two_who_know_share_the_responsibility(engine):
    """Either alone still gives the colour. Without both all colours are alike, and one is named whatever the thing."""
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(30)
    knowing = [phantom.SOURCE, phantom.UNWATCHED]
    found = hs.analyses.responsibility(
        model, prompts, hs.Zero(), components=[*knowing, "mlp.3", "attn.5"], engine=engine
    )
    blind = hs.sweep(model, prompts, hs.Zero(), ablate="+".join(knowing), metrics="top")
    named = blind["metric_ablated"].isel(metric=0, ablated=0, patch=0)
    assert len(np.unique(named)) == 1
    other = (named != blind["metric_clean"].isel(metric=0)).values
    assert 0 < other.sum() < 30
    for part in knowing:
        np.testing.assert_array_equal(found["responsibility"].sel(component=part), other / 2)
    # The backup gives nothing away that the colours differ in.
    assert not found["responsibility"].sel(component=["mlp.3", "attn.5"]).any()


def test_what_cannot_be_asked():
    model = tiny("gpt2")
    with pytest.raises(HydrascopeError, match="invalid most -1: give 0 or more"):
        hs.analyses.responsibility(model, PROMPTS, components="layers", most=-1)
    message = r"needs 59,711 overrides a prompt, more than the limit of 20,000: give fewer than 71 components"
    with pytest.raises(HydrascopeError, match=message):
        hs.analyses.responsibility(model, PROMPTS, components=[f"neuron.0.{number}" for number in range(71)], most=2)
