"""Effects per prompt where terms of a residual stream are overridden: their own change is part of the sum."""

import numpy as np
import pytest
import torch
import xarray as xr
from dictionaries import random_dictionary
from plain_terms import PlainTerms, plain_model, standing

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.measures import per_prompt

torch.set_num_threads(1)

PROMPTS = [[5, 9, 7, 11], [8, 6, 4, 20], [12, 13, 14, 15]]
PROBE = np.random.default_rng(0).normal(size=32)
READOUTS = [hs.Logit(), *(hs.Direction(PROBE, before=block, name=f"before {block}") for block in (1, 2))]
STREAM = "stream.1"
ABLATED = [
    *(f"feature.{STREAM}.3", f"feature.{STREAM}", f"error.{STREAM}", f"bias.{STREAM}+mlp.1", f"attn.0|error.{STREAM}"),
    *(f"feature.{STREAM}+error.{STREAM}|mlp.2", "attn.1"),
]


@pytest.fixture(scope="module", params=["llama", "granite"])
def results(request: pytest.FixtureRequest) -> xr.Dataset:
    model = plain_model(request.param)
    model = model.with_dictionaries(random_dictionary(model, STREAM))
    return hs.sweep(model, PROMPTS, hs.Resample(2, seed=3), ablate=ABLATED, readouts=READOUTS)


@pytest.mark.parametrize("sigma", ["clean", "own"])
@pytest.mark.parametrize("readout", ["logit", "before 1", "before 2"])
def test_total_is_the_sum_of_changes_norm_and_own(results: xr.Dataset, readout: str, sigma: str) -> None:
    effects = per_prompt(results, readout, sigma)
    changes = (effects["unembed_ablated"] - effects["unembed"]).where(effects["downstream"] | effects["is_ablated"], 0)
    total = changes.sum("component") + effects["norm"] + effects["own"]
    np.testing.assert_allclose(total, effects["total"], atol=1e-6)
    own = abs(effects["own"]).max("prompt")
    assert float(own.sel(ablated="attn.1")) == 0
    assert float(own.sel(ablated=f"bias.{STREAM}+mlp.1")) < 1e-9  # it is the same for all prompts
    assert (own.isel(ablated=[1, 2, 4, 5]) > 1e-3).all()
    if readout == "logit":
        assert float(abs(effects["norm"]).max()) > 1e-3
    else:
        np.testing.assert_allclose(effects["norm"], 0, atol=1e-9)


def test_the_readings_differ_by_the_scale(results: xr.Dataset) -> None:
    clean, own = (per_prompt(results, "logit", sigma) for sigma in ("clean", "own"))
    raw = results.sel(readout="logit")
    np.testing.assert_allclose(clean["own"], raw["own"].mean("patch"), atol=1e-12)
    np.testing.assert_allclose(own["own"], (raw["own"] * raw["scale"]).mean("patch"), atol=1e-12)
    assert float(abs(clean["own"] - own["own"]).max()) > 1e-3


def test_own_is_what_a_plain_pass_gives() -> None:
    model = plain_model("llama")
    plain = PlainTerms("llama", random_dictionary(model, STREAM, "topk"))
    model = model.with_dictionaries(plain.dictionary)
    asked = [f"feature.{STREAM}", f"error.{STREAM}"]
    effects = per_prompt(hs.sweep(model, PROMPTS, hs.Zero(), ablate=asked), sigma="own")
    for prompt, tokens in enumerate(PROMPTS):
        clean = plain.run(tokens)
        vector = plain.token(int((clean.normed @ plain.unembedding.T).argmax()))
        for label in asked:
            term = Component.parse(label)
            value = torch.zeros_like(standing(plain, clean, term)[[3]])
            run = plain.run(tokens, {term: ([3], value)})
            expected = plain.read(run.own, vector, plain.sigma(run.streams[-1]))
            assert float(effects["own"].sel(ablated=label)[prompt]) == pytest.approx(expected, abs=1e-5)
    assert float(abs(effects["own"]).max()) > 1e-2


def test_runs_without_terms_of_streams_have_no_own() -> None:
    model = plain_model("llama")
    model = model.with_dictionaries(random_dictionary(model, "mlp.1"))
    results = hs.sweep(model, PROMPTS, hs.Zero(), ablate="error.mlp.1")
    assert "own" not in results
    assert "own" not in per_prompt(results).data
