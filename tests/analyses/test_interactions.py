"""Who covers for whom: against runs made one by one, on the phantom, and by identities that hold for any model."""

from itertools import combinations

import numpy as np
import pytest
import torch
from alone import PROMPTS, total
from brute import plain_effects
from plain import Plain, Reader, exactly_normed, loaded
from stored import run_to_disk
from tiny import tiny

import hydrascope as hs
from hydrascope import measures
from hydrascope.models import phantom
from hydrascope.models.memory import Batch
from hydrascope.utils.errors import HydrascopeError


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "gemma2"])
def test_differences_of_runs_made_one_by_one(case):
    model = tiny(case)
    found = hs.analyses.interactions(model, PROMPTS, hs.Resample(2, 3), components="attn,head.1.2")
    for u, v in (("attn.0", "attn.2"), ("attn.0", "head.1.2")):
        expected = total(model, f"{u}+{v}") - total(model, u) - total(model, v)
        one = found["interaction"].sel(first=u, second=v)
        np.testing.assert_allclose(one, expected, atol=1e-6)
        np.testing.assert_array_equal(one, found["interaction"].sel(first=v, second=u))
        np.testing.assert_allclose(found["total"].sel(first=u), total(model, u), atol=1e-6)
    # A component with itself, and a sublayer with one of its heads.
    for u, v in (("attn.0", "attn.0"), ("attn.1", "head.1.2")):
        assert found["interaction"].sel(first=u, second=v).isnull().all()


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_pairs_of_heads_by_plain_forward_passes(case, monkeypatch):
    """Both heads overwritten by hooks of the test's own: of one block, and of blocks that follow each other.

    All at once, and three overrides at a time, where pairs leave rows that nobody asked for.
    """
    model, ablation = exactly_normed(loaded(case)), hs.Resample(2, 3)
    heads = ["head.0.1", "head.1.2", "head.1.3", "head.2.0"]
    found = [hs.analyses.interactions(model, PROMPTS, ablation, components=heads)]
    with monkeypatch.context() as patch:
        patch.setattr("hydrascope.models.memory.MemoryBudget.batch", lambda budget: Batch(1, 3))
        found.append(hs.analyses.interactions(model, PROMPTS, ablation, components=heads))
    assert [each.attrs["overrides_at_once"] for each in found] == [10, 3]
    sources = hs.sweep(model, PROMPTS, ablation, ablate=heads[0])["patch_prompt"].values

    def effect(clean: Plain, ablated: Plain) -> float:
        reader = Reader.of_logit(model, int(clean.logits.argmax()))
        return reader.whole(ablated) - reader.whole(clean)

    effects = {pair: each.mean(-1) for pair, each in plain_effects(model, PROMPTS, sources, heads, effect).items()}
    for i, j in combinations(range(len(heads)), 2):
        expected = effects[frozenset((i, j))] - effects[frozenset((i,))] - effects[frozenset((j,))]
        for each in found:
            one = each["interaction"].isel(readout=0).sel(first=heads[i], second=heads[j])
            np.testing.assert_allclose(one, expected, atol=1e-10)
        assert abs(expected).max() > 1e-5


def test_what_does_not_meet_does_not_interact():
    """The two sublayers of a parallel block, read right after it without a norm: their effects add up."""
    model = tiny("gpt_neox")
    probe = hs.Direction(torch.randn(model.width, dtype=torch.float64), before=2)
    found = hs.analyses.interactions(model, PROMPTS, hs.Resample(2), components="attn.1,mlp.1,attn.0", readouts=probe)
    pair = found["interaction"].sel(first="attn.1", second="mlp.1")
    size = float(abs(found["total"]).max())
    assert float(abs(pair).max()) < 1e-12 * size
    assert float(abs(found["interaction"].sel(first="attn.0", second="mlp.1")).max()) > 1e-3 * size


def test_on_the_phantom_each_backup_covers_for_what_it_watches():
    """A backup that is ablated, too, brings nothing: the pair costs that in addition."""
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(40)
    found = hs.analyses.interactions(
        model, prompts, hs.Zero(), components=[phantom.SOURCE, phantom.UNWATCHED, *phantom.BACKUPS]
    )
    mediated = hs.analyses.mediation(model, prompts, hs.Zero(), ablate=phantom.SOURCE, mediators=[*phantom.BACKUPS])
    size = float(abs(found["total"].sel(first=phantom.SOURCE)).max())
    for name in phantom.BACKUPS:
        brought = mediated["restored_by"].sel(ablated=phantom.SOURCE, mediator=name)
        pair = found["interaction"].sel(first=phantom.SOURCE, second=name)
        assert float(abs(pair + brought).max()) < 1e-2 * size
        assert float(pair.mean()) < -0.05 * size
        unwatched = found["interaction"].sel(first=phantom.UNWATCHED, second=name)
        assert float(abs(unwatched).max()) < 1e-2 * size


def test_only_effects_are_kept(tmp_path):
    model = tiny("llama")
    out = run_to_disk(model, PROMPTS, hs.Resample(2, 3), out=tmp_path / "i.zarr", ablate=hs.Interactions("layers"))
    results = hs.open_results(out)
    assert results.attrs["keep"] == "effects"
    assert "unembed_ablated" not in results
    found = hs.analyses.interactions(model, PROMPTS, hs.Resample(2, 3))
    np.testing.assert_array_equal(measures.interactions(results)["interaction"], found["interaction"])
    # Of single components it is known what they remove and what of it is restored.
    singles = measures.effects_only(measures.single_ablations(results))
    assert list(singles["ablated"].values) == [str(sublayer) for sublayer in model.sublayers]
    plain = measures.per_prompt(hs.sweep(model, PROMPTS, hs.Resample(2, 3), ablate="layers"))
    for name in ("total", "direct", "logit"):
        np.testing.assert_allclose(singles[name], plain[name], atol=1e-5)
    with pytest.raises(HydrascopeError, match=r"keeps effects only: measure again with keep=.means."):
        measures.per_prompt(results)


def test_what_cannot_be_asked():
    model = tiny("gpt2")
    with pytest.raises(HydrascopeError, match=r"attn\.0 alone can't interact: name at least two components"):
        hs.analyses.interactions(model, PROMPTS, components="attn.0")
    with pytest.raises(HydrascopeError, match="are no results of interactions: measure with hydrascope interact"):
        measures.interactions(hs.sweep(model, PROMPTS, hs.Zero()))


def test_results_of_one_readout():
    experiment, readouts = hs.Interactions("attn"), [hs.Logit(), hs.Placebo(1)]
    results = hs.sweep(tiny("gpt2"), PROMPTS, hs.Zero(), ablate=experiment, readouts=readouts)
    one = measures.interactions(results.isel(readout=1))["interaction"]
    np.testing.assert_array_equal(one, measures.interactions(results)["interaction"].isel(readout=[1]))
