"""Terms of dictionaries in other analyses: mediators, activations, and those that refuse them."""

import numpy as np
import pytest
import torch
import xarray as xr
from dictionaries import random_dictionary
from plain import loaded
from plain_terms import PlainTerms, plain_model, standing
from stored import run_to_disk

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.components.network import Network
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

PROMPTS = [[5, 9, 7, 11], [8, 6, 4], [12, 13, 14, 15, 3]]
TERMS = ("feature.mlp.1", "error.mlp.1", "bias.mlp.1")


def attached(case: str, *sites: str, activation: str = "topk") -> LanguageModel:
    model = plain_model(case)
    return model.with_dictionaries(*(random_dictionary(model, site, activation) for site in sites))


@pytest.mark.parametrize(("case", "site"), [("llama", "mlp.1"), ("gemma2", "transcoder.1"), ("gpt2", "heads.1")])
def test_restored_by_terms_is_the_difference_of_plain_runs(case: str, site: str) -> None:
    model, ablation = attached(case, site), hs.Resample(2, seed=3)
    sublayer = str(Component.parse(f"feature.{site}").sublayer)
    terms = [f"{kind}.{site}" for kind in ("feature", "error", "bias")]
    asked = hs.Mediation("attn.0,head.0.1", f"{sublayer},terms.{site}")
    found = hs.measures.mediation(hs.sweep(model, PROMPTS, ablation, ablate=asked, read="terms"))
    assert list(found["mediator"].values) == [sublayer, *terms]

    def total(label: str) -> np.ndarray:
        run = hs.sweep(model, PROMPTS, ablation, ablate=[label], engine="reference")
        return run["total"].isel(ablated=0).mean("patch").values

    for ablated in ("attn.0", "head.0.1"):
        free = total(ablated)
        for mediator in (sublayer, *terms):
            here = found.sel(ablated=ablated, mediator=mediator)
            np.testing.assert_allclose(here["restored_by"], free - total(f"{ablated}|{mediator}"), atol=1e-5)
            assert bool(here["downstream"])
    assert float(abs(found["restored_by"]).max()) > 0.01
    run = hs.sweep(model, PROMPTS, ablation, ablate="attn.0,head.0.1", read="terms", keep="means")
    response = (run["unembed_ablated"] - run["unembed"]).sel(component=[sublayer, *terms])
    np.testing.assert_allclose(
        found["response"], response.transpose(*found["response"].dims[:3], "component"), atol=1e-5
    )


def test_terms_upstream_or_of_what_is_ablated_restore_nothing(tmp_path) -> None:
    """And from disk the same, where the network is read from the attributes."""
    model = attached("llama", "mlp.1")
    asked = hs.Mediation("attn.0,attn.2,mlp.1,neuron.1.3", "mlp.1,terms.mlp.1")
    out = run_to_disk(model, PROMPTS, hs.Zero(), out=tmp_path / "m.zarr", ablate=asked)
    stored = hs.open_results(out)
    assert Network.of(stored).feature_counts == {"mlp.1": 12}
    found = hs.measures.mediation(stored)
    assert not found["restored_by"].sel(ablated=["attn.2", "mlp.1", "neuron.1.3"]).any()
    again = hs.analyses.mediation(model, PROMPTS, hs.Zero(), ablate=asked.ablate, mediators=asked.mediators)
    xr.testing.assert_allclose(found["restored_by"].drop_vars("text"), again["restored_by"].drop_vars("text"))
    assert Network.of(hs.sweep(plain_model("llama"), PROMPTS, hs.Zero(), ablate="attn.0")).feature_counts == {}


def test_single_features_are_no_mediators() -> None:
    with pytest.raises(HydrascopeError, match=r"feature\.mlp\.1\.3 can't be a mediator by itself: give all features"):
        hs.analyses.mediation(
            attached("llama", "mlp.1"), PROMPTS, hs.Zero(), ablate="attn.0", mediators="feature.mlp.1.3"
        )


@pytest.mark.parametrize(
    ("case", "site"),
    [
        *(("llama", site) for site in ("mlp.1", "heads.1", "stream.1")),
        *(("granite", site) for site in ("mlp.1", "stream.1", "transcoder.1")),
    ],
)
@pytest.mark.parametrize("feature", [".3", ""])
def test_activations_of_terms_are_those_of_plain_passes(case: str, site: str, feature: str) -> None:
    plain = PlainTerms(case, random_dictionary(plain_model(case), site, "topk"))
    model = plain.model.with_dictionaries(plain.dictionary)
    for label in (f"feature.{site}{feature}", f"error.{site}", f"bias.{site}"):
        found = hs.activations(model, PROMPTS, label, at="all", ablation=hs.Zero(), ablate="attn.0")
        term = Component.parse(label)
        for prompt, tokens in enumerate(PROMPTS):
            clean = plain.run(tokens)
            attn = Component(0, "attn")
            ablated = plain.run(tokens, {attn: ([len(tokens) - 1], torch.zeros(1, 32, dtype=torch.float64))})
            slots = slice(len(tokens))
            for run, name in ((clean, ""), (ablated, "_ablated")):
                here = found.isel(prompt=prompt, slot=slots, component=0)
                here = here.isel(ablated=0, patch=0) if name else here
                activation = here[f"activation{name}"]
                np.testing.assert_allclose(activation, standing(plain, run, term), atol=1e-4)
                expected = plain.written(run, term)
                np.testing.assert_allclose(here[f"write{name}"][-1], expected, atol=1e-4)
        assert float(abs(found["write"]).max()) > 1e-2


def test_a_write_through_a_norm_is_not_known_here() -> None:
    model = attached("gemma2", "raw.mlp.1")
    with pytest.raises(HydrascopeError, match=r"error\.raw\.mlp\.1 writes through a norm.*keep its activation"):
        hs.activations(model, PROMPTS, "error.raw.mlp.1")
    found = hs.activations(model, PROMPTS, "feature.raw.mlp.1", keep=["activation"])
    assert found["activation"].sizes["column"] == 12


def test_other_analyses_refuse_terms() -> None:
    model = loaded()
    model = model.with_dictionaries(random_dictionary(model, "mlp.1"))
    says = r"error\.mlp\.1 is a term of a dictionary: {} takes sublayers, heads and neurons"
    with pytest.raises(HydrascopeError, match=says.format("path patching")):
        hs.analyses.path_patching(model, ["the cat"], hs.Zero(), senders="attn.0", receivers="error.mlp.1")
    with pytest.raises(HydrascopeError, match=says.format("path patching")):
        hs.analyses.path_patching(model, ["the cat"], hs.Zero(), senders="error.mlp.1", receivers="mlp.2")
    for method in (hs.analyses.attribution.atp, hs.analyses.attribution.gim):
        with pytest.raises(HydrascopeError, match=says.format("an attribution method")):
            method(model, ["the cat", "no"], hs.Zero(), ablate="error.mlp.1")
    with (
        pytest.raises(HydrascopeError, match=says.format("generation")),
        hs.analyses.override(model, "error.mlp.1", by="zero"),
    ):
        pass
