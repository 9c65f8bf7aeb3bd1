"""Models that also see images: their text part is measured, as the text-only model of the same weights."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from rest_slow import rest_slow
from tiny import tiny_tokenizer

import hydrascope as hs
from hydrascope.loading import text_part
from hydrascope.models import architectures

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


def qwen_vl(version: str) -> tuple[Any, Any]:
    """Qwen2-VL, 2.5 and 3: transformers has no language model of their text parts."""
    seeing = {"depth": 1, "hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 24, "num_heads": 2}
    turns = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    kinds = {
        "2": (tf.Qwen2VLConfig, tf.Qwen2VLForConditionalGeneration, tf.Qwen2ForCausalLM),
        "2.5": (tf.Qwen2_5_VLConfig, tf.Qwen2_5_VLForConditionalGeneration, tf.Qwen2ForCausalLM),
        "3": (tf.Qwen3VLConfig, tf.Qwen3VLForConditionalGeneration, tf.Qwen3ForCausalLM),
    }
    settings, whole, alone = kinds[version]
    vision = {
        "2": {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
        "2.5": seeing,
        "3": {**seeing, "deepstack_visual_indexes": [0]},
    }[version]
    text = {**TEXT, "head_dim": 8, "rope_parameters": turns}
    return whole(settings(text_config=text, vision_config=vision)), alone


MADE = {
    "gemma3": gemma3,
    "mistral3": mistral3,
    "llava": llava,
    **{f"qwen{version}-vl": partial(qwen_vl, version) for version in ("2", "2.5", "3")},
}


@pytest.fixture(params=rest_slow(MADE, ("gemma3", "mistral3", "qwen2.5-vl")))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Return a model of images and text with random weights, and a model of its text alone, made anew."""
    torch.manual_seed(0)
    whole, kind = MADE[request.param]()
    for parameter in whole.parameters():
        parameter.data.normal_(0, 0.2)
    text = whole.model.language_model.config
    if type(text) is not kind.config_class:
        plain = {**text.to_dict(), "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        text = kind.config_class(**{key: value for key, value in plain.items() if key != "model_type"})
    alone = kind(text)
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


def test_a_text_part_without_a_model_of_its_own_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_part, "_ON_TEXT", {})
    with pytest.raises(
        hs.HydrascopeError, match=r"sees images, and transformers has no language model of its text part"
    ):
        hs.load_model(qwen_vl("2.5")[0])


def test_weights_that_are_trained_later_are_those_of_the_text_part() -> None:
    torch.manual_seed(0)
    whole, _ = qwen_vl("2.5")
    model = hs.load_model(whole.eval())
    before = hs.sweep(model, PROMPTS, hs.Zero())["total"].values
    whole.model.language_model.layers[1].mlp.down_proj.weight.data.mul_(3)
    again = hs.sweep(model, PROMPTS, hs.Zero())["total"].values
    np.testing.assert_array_equal(again, hs.sweep(hs.load_model(whole), PROMPTS, hs.Zero())["total"].values)
    assert np.abs(again - before).max() > 1e-3


def test_a_declaration_for_the_whole_is_none_for_the_text_only_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole's architecture is another name than the text's, whose own anatomy stays."""
    torch.manual_seed(0)
    whole, kind = gemma3()
    alone = kind(whole.model.language_model.config)
    before = dict(architectures._ANATOMIES)
    monkeypatch.setattr(architectures, "_ANATOMIES", dict(before))
    hs.declare("gemma3", hs.models.Anatomy(norm_kind="layer", mlp_out="mlp.up_proj"))
    assert architectures.anatomy_of("gemma3_text") == before["gemma3_text"]
    for model in (whole, alone):
        assert hs.load_model(model.eval()).anatomy == before["gemma3_text"]
