"""Models that also see images: their text part is measured, as the text-only model of the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from rest_slow import rest_slow
from tiny import tiny_tokenizer

import hydrascope as hs

PROMPTS = [[5, 3, 8, 1, 9, 2, 4, 7], [2, 9, 6], [7, 7, 1, 4, 6]]
TEXT = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def gemma3() -> tuple[Any, Any]:
    text = {**TEXT, "head_dim": 8, "sliding_window": 3}
    config = tf.Gemma3Config(
        text_config=text, vision_config=VISION, mm_tokens_per_image=4, image_token_index=57, boi_token_index=58,
        eoi_token_index=59,
    )  # fmt: skip
    return tf.Gemma3ForConditionalGeneration(config), tf.Gemma3ForCausalLM


def mistral3() -> tuple[Any, Any]:
    config = tf.Mistral3Config(
        text_config={"model_type": "mistral", **TEXT}, vision_config={"model_type": "pixtral", **VISION},
        image_token_index=57,
    )  # fmt: skip
    return tf.Mistral3ForConditionalGeneration(config), tf.MistralForCausalLM


def llava() -> tuple[Any, Any]:
    config = tf.LlavaConfig(
        text_config={"model_type": "llama", **TEXT}, vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=57,
    )  # fmt: skip
    return tf.LlavaForConditionalGeneration(config), tf.LlamaForCausalLM


MADE = {"gemma3": gemma3, "mistral3": mistral3, "llava": llava}


@pytest.fixture(params=MADE)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Return a model of images and text with random weights, and a model of its text alone, made anew."""
    torch.manual_seed(0)
    whole, kind = MADE[request.param]()
    for parameter in whole.parameters():
        parameter.data.normal_(0, 0.2)
    alone = kind(whole.model.language_model.config)
    alone.model.load_state_dict(whole.model.language_model.state_dict())
    alone.lm_head.load_state_dict(whole.lm_head.state_dict())
    return whole.eval(), alone.eval()


@pytest.mark.parametrize("given", rest_slow(["object", "folder"], ("folder",)))
def test_it_is_measured_as_the_text_only_model(pair: tuple[Any, Any], given: str, tmp_path: Path) -> None:
    whole, alone = pair
    tokenizer = tiny_tokenizer()
    expected = hs.sweep(hs.load_model(alone, tokenizer), PROMPTS, hs.Resample(1))
    if given == "folder":
        whole.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    model = hs.load_model(whole, tokenizer) if given == "object" else hs.load_model(tmp_path)
    found = hs.sweep(model, PROMPTS, hs.Resample(1))
    for name in ("total", "direct", "unembed", "unembed_ablated"):
        np.testing.assert_array_equal(found[name].values, expected[name].values)
    assert type(model.hf) is type(alone)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_text_part_generates_as_the_whole_and_is_measured_by_nobody_meanwhile() -> None:
    torch.manual_seed(0)
    whole, _ = gemma3()
    whole.generation_config.eos_token_id = [1, 7]
    first, second = hs.load_model(whole.eval()), hs.load_model(whole)
    with hs.override(first, "mlp.1", at="all") as hf:
        assert hf.generation_config.eos_token_id == [1, 7]
        with pytest.raises(hs.HydrascopeError, match="is overridden: leave the with block"):
            hs.sweep(second, PROMPTS, hs.Zero())
    assert hs.sweep(second, PROMPTS, hs.Zero()).sizes["prompt"] == 3


def test_a_text_part_without_a_model_of_its_own_is_named() -> None:
    config = tf.Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={"depth": 1, "hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 24, "num_heads": 2},
    )
    with pytest.raises(
        hs.HydrascopeError, match=r"sees images, and transformers has no language model of its text part"
    ):
        hs.load_model(tf.Qwen2_5_VLForConditionalGeneration(config))
