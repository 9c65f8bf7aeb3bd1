"""Ablations draw what Appendix A says, reproducibly, whatever the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import VOCABULARY, tiny

from hydrascope.ablation import Mean, Noise, Resample, Zero, clean_bank, draw, embedding_std, patch_sources
from hydrascope.engines.hooks import hooked, on_input
from hydrascope.errors import HydrascopeError

PROMPTS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15, 16]]


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def bank(model):
    return clean_bank(model, PROMPTS, batch_size=2)


def test_bank_is_what_single_runs_write(model, bank):
    """By the residual stream alone: what attention and MLP of a block add together."""
    for prompt, tokens in enumerate(PROMPTS):
        ids = torch.tensor([tokens])
        states = model.hf(ids, output_hidden_states=True).hidden_states
        added = (states[1] - states[0])[0, -1]
        torch.testing.assert_close(bank.activations[prompt, 0] + bank.activations[prompt, 1], added)
        assert bank.argmax[prompt] == model.hf(ids).logits[0, -1].argmax()


@given(st.integers(2, 40), st.data(), st.integers(0, 2**31))
def test_resample_sources(count, data, seed):
    patches = data.draw(st.integers(1, count - 1))
    sources = patch_sources(Resample(patches, seed), [0] * count)
    assert sources.shape == (count, patches)
    for prompt, row in enumerate(sources):
        assert len(set(row)) == patches
        assert prompt not in row
        assert ((row >= 0) & (row < count)).all()
    assert (patch_sources(Resample(patches, seed), [0] * count) == sources).all()


def test_resample_sources_follow_the_seed():
    assert (patch_sources(Resample(5, 0), [0] * 50) != patch_sources(Resample(5, 1), [0] * 50)).any()


def test_every_other_prompt_is_drawn_equally_often():
    """Over many seeds, a prompt's patch comes from each other prompt alike."""
    counts = np.zeros(6)
    for seed in range(3000):
        counts[patch_sources(Resample(1, seed), [0] * 6)[2, 0]] += 1
    assert counts[2] == 0
    # 600 each; five standard deviations of a binomial count are 110.
    assert (np.abs(np.delete(counts, 2) - 600) < 110).all()


def test_different_target():
    targets = [1, 1, 2, 3, 1, 2]
    sources = patch_sources(Resample(3, different_target=True), targets)
    for prompt, row in enumerate(sources):
        assert all(targets[source] != targets[prompt] for source in row)


@pytest.mark.parametrize(
    ("ablation", "targets"), [(Resample(5), [0] * 5), (Resample(2, different_target=True), [1, 1, 1, 2])]
)
def test_too_few_prompts(ablation, targets):
    with pytest.raises(HydrascopeError, match=r"--patches"):
        patch_sources(ablation, targets)


def test_no_patches():
    with pytest.raises(HydrascopeError, match="at least one"):
        patch_sources(Resample(0), [0, 0])


def test_resample_draws_from_the_bank(model, bank):
    patches = draw(Resample(3), model, bank, PROMPTS, [0] * 5, [4, 1])
    for place in range(2):
        for number in range(3):
            source = patches.sources[place, number]
            for index, component in enumerate(model.components):
                assert torch.equal(patches.values[component][place, number], bank.activations[source, index])


def test_zero_and_mean(model, bank):
    zero = draw(Zero(), model, bank, PROMPTS, [0] * 5, [1, 2])
    mean = draw(Mean(), model, bank, PROMPTS, [0] * 5, [1, 2])
    for index, component in enumerate(model.components):
        assert zero.values[component].shape == mean.values[component].shape == (2, 1, 32)
        assert not zero.values[component].any()
        expected = sum(bank.activations[prompt, index] for prompt in range(5)) / 5
        torch.testing.assert_close(mean.values[component][1, 0], expected)
    assert (zero.sources == -1).all()
    assert (mean.sources == -1).all()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 5))
def test_draws_do_not_depend_on_the_batch(order, seed):
    model = tiny("llama")
    bank = clean_bank(model, PROMPTS, 3)
    for ablation in (Resample(2, seed), Noise(2, seed=seed)):
        together = draw(ablation, model, bank, PROMPTS, [0] * 5, order)
        for place, prompt in enumerate(order):
            alone = draw(ablation, model, bank, PROMPTS, [0] * 5, [prompt])
            assert (together.sources[place] == alone.sources[0]).all()
            for component in model.components:
                assert torch.equal(together.values[component][place], alone.values[component][0])


def test_noise_is_of_the_stated_size(model, bank):
    """The first block sees embeddings that differ from the clean ones by `scale` standard deviations."""
    tokens = list(range(4, 44)) * 4
    seen = []
    with hooked([on_input(model.layers[0], lambda hidden: seen.append(hidden))]):
        draw(Noise(8, scale=2.0), model, bank, [tokens], [0], [0])
    embedding = model.hf.get_input_embeddings()
    noise = seen[0] - embedding(torch.tensor(tokens))
    assert abs(float(noise.std()) / float(embedding.weight.std(correction=0)) - 2.0) < 0.02
    assert abs(float(noise.mean())) < 0.02
    assert not torch.equal(noise[0], noise[1])


def test_embedding_std_counts_a_scale_inside_the_module():
    model = tiny("gemma3_text")
    embedding = model.hf.get_input_embeddings()
    expected = embedding(torch.arange(VOCABULARY)).std(correction=0)
    assert abs(embedding_std(model) - float(expected)) < 1e-9
    assert embedding_std(model) > 2 * float(embedding.weight.std())
