"""Each prompt is measured as if it were alone: whatever its batch, on every architecture and rope type."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_slow import CORE
from ropes import LIMIT, roped, ropes_of
from single import Single
from tiny import CONFIGS, VOCABULARY, shared, tolerance

import hydrascope as hs
from hydrascope.analyses.attribution import atp
from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.models.batching import batchable, padded
from hydrascope.models.language_model import LanguageModel

torch.set_num_threads(1)

#: Rope types that depend on nothing but the position: they are tried at length.
FIXED = ("linear", "yarn", "llama3")
CASES = [
    pytest.param(case, rope, marks=pytest.mark.slow if rope in FIXED or case not in CORE else ())
    for case in CONFIGS
    for rope in ropes_of(case) or [""]
]

#: Prompts on both sides of what a table depends on.
some_lengths = st.lists(st.integers(1, LIMIT) | st.integers(LIMIT + 1, 2 * LIMIT), min_size=2, max_size=5)


@cache
def model_of(case: str, rope: str) -> LanguageModel:
    model = roped(case, rope) if rope else shared(case)
    model.hf.eval()
    return model


def drawn(lengths: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize(("case", "rope"), CASES)
@settings(max_examples=1, deadline=None)
@given(data=st.data(), lengths=some_lengths, seed=st.integers(0, 100), batch=st.sampled_from([1, 2, 16]))
def test_a_prompt_gets_what_it_gets_alone(case, rope, data, lengths, seed, batch):
    model = model_of(case, rope)
    prompts = hs.prompts.PromptSet.of(drawn(lengths, seed))
    tokens = [list(prompt.tokens) for prompt in prompts.prompts]
    if len(tokens) < 2:
        return
    ablation = data.draw(st.sampled_from([hs.Zero(), hs.Resample(1)]))
    results = hs.sweep(model, prompts, ablation, batch_size=batch)
    index = data.draw(st.integers(0, len(tokens) - 1))
    alone, here = Single(model, tokens[index]), results.isel(prompt=index, readout=0, patch=0)
    assert alone.target == int(here["target"])
    size = float(alone.logits.abs().max())
    np.testing.assert_allclose(float(here["logit"]), alone.read(alone.logits), atol=tolerance(case) * size)
    source = int(here["patch_prompt"])
    written = Single(model, tokens[source]).written if source >= 0 else {}
    for label in data.draw(st.lists(st.sampled_from(list(map(str, model.sublayers))), min_size=1, max_size=3)):
        expected = alone.total(label, written.get(label))
        np.testing.assert_allclose(
            float(here["total"].sel(ablated=label)), expected, atol=tolerance(case) * size, err_msg=label
        )


@pytest.mark.parametrize(
    ("case", "rope"),
    [(case, "dynamic") for case in ("llama", "gemma3_text", "gpt_neox")]
    + [(case, "longrope") for case in ("llama", "phi3", "gemma3_text", "gpt_neox")],
)
def test_tables_differ_at_the_limit_and_only_there(case, rope):
    """Else the tests of this file would try nothing."""
    model = model_of(case, rope)
    assert model.batch_key(1) == model.batch_key(LIMIT) != model.batch_key(LIMIT + 1)
    assert (model.batch_key(LIMIT + 1) == model.batch_key(LIMIT + 2)) == (rope == "longrope")
    short, long = drawn([LIMIT, LIMIT + 2], 0)
    together = model.hf(torch.tensor([short + [0] * 2, long]), use_cache=False).logits[0, LIMIT - 1]
    assert (together - Single(model, short).logits).abs().max() > 1e-3


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_clean_passes_may_mix_and_batches_may_not(rope):
    model = model_of("llama", rope)
    tokens = drawn([3, LIMIT + 1, 5, LIMIT + 1, 4], 1)
    assert batchable(model, tokens) == [[0, 2, 4], [1, 3]]
    clean = compute_clean_pass(model, tokens)
    for index, ids in enumerate(tokens):
        for label, value in Single(model, ids).written.items():
            torch.testing.assert_close(clean.values[Component.parse(label)][index], value, atol=1e-5, rtol=1e-5)
    with pytest.raises(hs.HydrascopeError, match="3 and 10 tokens differently"):
        padded(model, tokens)


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
@pytest.mark.parametrize("engine", ["wavefront", pytest.param("reference", marks=pytest.mark.slow)])
def test_every_kind_of_run_is_as_if_alone(rope, engine):
    """At all positions, by twins and by noise, frozen and joint, with estimates from gradients."""
    model = model_of("llama", rope)
    short, long = drawn([4, 5, 6], 2), drawn([LIMIT + 2, LIMIT + 4], 3)
    twins = drawn([LIMIT + 5, 3, 6, 4, LIMIT + 6], 4)
    prompts = [
        hs.Prompt(tokens=tuple(ids), counterfactual=tuple(twin))
        for ids, twin in zip([*short, *long], twins, strict=True)
    ]
    runs = ["attn.0", "mlp.1", "head.1.2", "attn.0+mlp.1", "attn.0|mlp.1"]
    for ablation, at in ((hs.Counterfactual(), "last"), (hs.Noise(2), "all"), (hs.Zero(), "all")):
        together = hs.sweep(model, prompts, ablation, ablate=runs, at=at, engine=engine)
        alone = hs.sweep(model, prompts, ablation, ablate=runs, at=at, engine=engine, batch_size=1)
        for name in ("logit", "total", "direct", "indirect", "unembed", "unembed_ablated", "scale"):
            np.testing.assert_allclose(together[name], alone[name], atol=1e-5, err_msg=name)
    estimates = [atp(model, prompts, hs.Zero(), batch_size=size)["estimate"] for size in (8, 1)]
    np.testing.assert_allclose(estimates[0], estimates[1], atol=1e-5)


def test_a_user_s_own_long_pass_leaves_nothing_behind():
    """Dynamic NTK remembers the longest prompt it has met; the model comes back as it was."""
    model = model_of("llama", "dynamic")
    long, short = drawn([2 * LIMIT, LIMIT + 1], 5)
    with torch.no_grad():
        model.hf(torch.tensor([long]), use_cache=False)
    rotary = model.hf.model.rotary_emb
    before = rotary.inv_freq.clone(), int(rotary.max_seq_len_cached)
    results = hs.sweep(model, [short], hs.Zero())
    alone = Single(roped("llama", "dynamic"), short)
    np.testing.assert_allclose(float(results["logit"][0, 0]), alone.read(alone.logits), atol=1e-5)
    assert torch.equal(rotary.inv_freq, before[0])
    assert int(rotary.max_seq_len_cached) == before[1]
