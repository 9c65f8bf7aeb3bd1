"""Whole runs that ablate and read a dictionary's terms, from the prompts to the result."""

import numpy as np
import pytest
import torch
import xarray as xr
from dictionaries import random_dictionary
from plain_terms import PlainTerms, Run, plain_model, standing

import hydrascope as hs
from hydrascope.components.component import Component, Override

#: Of one length, so that any may patch any at every position.
PROMPTS = [[5, 9, 7, 11], [8, 6, 4, 20], [12, 13, 14, 15], [3, 30, 2, 41]]

CASES = [("llama", "mlp.1", "topk"), ("gemma2", "raw.attn.1", "jumprelu"), ("gpt2", "transcoder.1", "relu")]
CASES += [("gpt_neox", "heads.1", "batchtopk"), ("granite", "stream.1", "topk")]

Ablation = hs.Zero | hs.Resample


def swept(case: str, site: str, activation: str, ablation: Ablation, at: str) -> tuple[PlainTerms, xr.Dataset]:
    plain = PlainTerms(case, random_dictionary(plain_model(case), site, activation))
    model = plain.model.with_dictionaries(plain.dictionary)
    one, all_terms = f"feature.{site}.3", f"feature.{site}+error.{site}+bias.{site}"
    ablate = f"{one},error.{site},bias.{site},feature.{site},{one}+error.{site},attn.0|{one},{all_terms}"
    read = f"terms,feature.{site}.3"
    return plain, hs.sweep(model, PROMPTS, ablation, ablate=ablate, read=read, at=at, keep="patches")


@pytest.mark.parametrize(("ablation", "at"), [(hs.Zero(), "last"), (hs.Resample(2), "all")], ids=["zero", "resample"])
@pytest.mark.parametrize(("case", "site", "activation"), CASES)
def test_a_sweep_gives_what_the_definition_does(
    case: str, site: str, activation: str, at: str, ablation: Ablation
) -> None:
    plain, found = swept(case, site, activation, ablation, at)
    places = range(4) if at == "all" else [3]
    clean = [plain.run(tokens) for tokens in PROMPTS]
    seen: set[str] = set()
    for prompt, tokens in enumerate(PROMPTS):
        vector = plain.token(int(found["target"][prompt]))
        sigma = plain.sigma(clean[prompt].streams[-1])
        for label in found["ablated"].values:
            override = Override.parse(str(label))
            for patch in range(found.sizes["patch"]):
                here = found.isel(prompt=prompt, patch=patch, readout=0).sel(ablated=label)
                source = None if isinstance(ablation, hs.Zero) else clean[int(here["patch_prompt"])]

                def value(component: Component, source: Run | None = source, own: Run = clean[prompt]) -> torch.Tensor:
                    values = standing(plain, own if source is None else source, component)[list(places)]
                    return torch.zeros_like(values) if source is None else values

                changes = {component: (places, value(component)) for component in override.ablated}
                changes |= {c: (range(4), standing(plain, clean[prompt], c)) for c in override.frozen}
                run = plain.run(tokens, changes)
                total = plain.logit(run.streams[-1], vector) - plain.logit(clean[prompt].streams[-1], vector)
                assert float(here["total"]) == pytest.approx(total, abs=1e-4)
                assert float(here["scale"]) == pytest.approx(float(sigma / plain.sigma(run.streams[-1])), rel=1e-5)
                for name in found["component"].values[6:]:
                    read = plain.read(plain.written(run, Component.parse(str(name))), vector, sigma)
                    by_patch = here["unembed_ablated_by_patch"].sel(component=name)
                    assert float(by_patch) == pytest.approx(read, abs=1e-4)
                    seen.add(str(name))
    assert len(seen) == 4
    assert float(found.attrs["worst_imbalance"]) < 1e-5
    assert float(np.abs(found["total"]).max()) > 1e-2


@pytest.mark.parametrize("ablation", [hs.Zero(), hs.Resample(2)], ids=["zero", "resample"])
@pytest.mark.parametrize(("case", "site", "activation"), [CASES[0], CASES[2]])
def test_all_terms_together_are_their_sublayer(case: str, site: str, activation: str, ablation: Ablation) -> None:
    model = plain_model(case)
    model = model.with_dictionaries(random_dictionary(model, site, activation))
    together = f"feature.{site}+error.{site}+bias.{site}"
    found = hs.sweep(model, PROMPTS, ablation, ablate=f"{together},mlp.1", at="all")
    for name in ("total", "direct", "indirect", "scale"):
        terms, sublayer = (found[name].sel(ablated=label).values for label in (together, "mlp.1"))
        np.testing.assert_allclose(terms, sublayer, atol=1e-5)


@pytest.mark.parametrize(("case", "site", "activation"), [case for case in CASES if case[1] != "stream.1"])
def test_a_whole_dose_of_terms_is_their_ablation(case: str, site: str, activation: str) -> None:
    model = plain_model(case)
    model = model.with_dictionaries(random_dictionary(model, site, activation))
    unit = "neuron.1.1" if site in ("mlp.1", "transcoder.1") else "head.1.1"
    whole = [f"feature.{site}.3", f"error.{site}", f"feature.{site}.1+bias.{site}", f"{unit}+error.{site}"]
    found = hs.sweep(model, PROMPTS, hs.Resample(2), ablate=hs.Split(whole, doses=(1.0,)))
    for name in ("total", "direct", "indirect"):
        for label in found["ablated"].values[:4]:
            dose = found[name].sel(ablated=f"{label}:dose(1)").values
            np.testing.assert_allclose(dose, found[name].sel(ablated=label).values, atol=1e-5)
