"""A loaded model knows its components."""

import pytest
import torch
from tiny import CONFIGS, shared, tiny, tiny_tokenizer

from hydrascope.components.component import Component
from hydrascope.models.batching import padded
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError


@pytest.mark.parametrize("case", list(CONFIGS))
def test_the_stage_says_what_reads_what(case):
    """An MLP comes after attention of its block, but in parallel blocks beside it; a unit counts as its sublayer."""
    model = shared(case)
    assert model.parallel == (
        case in {"gpt_neox", "gptj", "phi", "stablelm-parallel", "cohere", "falcon", "falcon-new"}
    )
    stages = [model.stage(component) for component in model.sublayers]
    assert stages == ([0, 0, 1, 1, 2, 2] if model.parallel else [0, 1, 2, 3, 4, 5])
    for block in range(3):
        assert model.stage(Component(block, "head", 1)) == model.stage(Component(block, "attn"))
        assert model.stage(Component(block, "neuron", 1)) == model.stage(Component(block, "mlp"))


@pytest.mark.parametrize("case", list(CONFIGS))
def test_context_length(case):
    # Bloom's positions are distances: it sets no limit.
    assert shared(case).context_length == (None if case == "bloom" else 64)


def test_padding():
    ids, last = padded(tiny("llama"), [[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert last.tolist() == [2, 0]


def test_numbers_are_never_read_in_less_than_float32():
    assert [wider(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)] == [
        *(torch.float32, torch.float32, torch.float32, torch.float64)
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_mean_of_the_unembedding_centres_logits(dtype):
    model = tiny("llama", dtype)
    expected = model.hf.lm_head.weight.detach().double().mean(0)
    assert model.mean_unembedding.dtype == wider(dtype)
    torch.testing.assert_close(model.mean_unembedding.double(), expected, rtol=1e-6, atol=1e-8)


def test_the_vocabulary_is_the_tokenizer_s_where_the_unembedding_has_more_rows():
    model = tiny("llama")
    assert model.vocabulary == 61
    model.tokenizer = tiny_tokenizer()
    assert model.vocabulary == len(tiny_tokenizer()) < 61


def test_measuring_is_without_dropout_and_gradients_and_ends_with_the_model_as_it_was():
    model = tiny("gpt2")
    model.hf.train()
    model.blocks[1].eval()
    before = [module.training for module in model.hf.modules()]
    with model.measuring():
        with model.measuring():
            assert not any(module.training for module in model.hf.modules())
        assert not any(module.training for module in model.hf.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.hf.modules()] == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_are_multiplied_one_by_one_only_while_measuring_in_float64(case):
    model = tiny(case)
    before = model.hf.get_experts_implementation()
    assert "eager" not in before.values()
    with model.measuring():
        assert model.hf.get_experts_implementation() == dict.fromkeys(before, "eager")
    assert model.hf.get_experts_implementation() == before
    narrow = tiny(case, torch.float32)
    with narrow.measuring():
        assert narrow.hf.get_experts_implementation() == before


def test_a_model_without_a_tokenizer_says_so():
    with pytest.raises(HydrascopeError, match="llama was made without a tokenizer: give token ids"):
        shared("llama").encode("hello")


def test_an_unknown_path_is_named():
    model = tiny("llama")
    del model.hf.model.layers[1].self_attn.o_proj
    with pytest.raises(HydrascopeError, match=r"no module 'self_attn\.o_proj': its anatomy does not fit"):
        LanguageModel(model.hf)


def test_a_model_says_what_it_is():
    assert repr(tiny("llama", torch.float32)) == "LanguageModel('llama', 3 blocks, torch.float32, cpu)"
