"""Take the language model out of a model that also sees images, as Gemma 3 does."""

import copy
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from hydrascope.loading.wrappers import require_same_logits
from hydrascope.utils.errors import HydrascopeError

#: Language models that compute the same on text, for text parts of which transformers has no language model. Their
#: rotary embeddings turn by row and column of an image, too; the place of a word is one number for all.
_ON_TEXT: dict[str, Any] = {
    "qwen2_vl_text": Qwen2ForCausalLM,
    "qwen2_5_vl_text": Qwen2ForCausalLM,
    "qwen3_vl_text": Qwen3ForCausalLM,
}


def class_to_read(config: PretrainedConfig) -> Any:
    """Return the class that reads a model: of language alone, or of images and text."""
    sees = type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def text_part(hf: PreTrainedModel) -> PreTrainedModel:
    """Return the language model inside a model of images and text; others as they are.

    It shares its modules with `hf`, at least those with weights, and has no weights of its own.

    Raises:
        HydrascopeError: transformers has no causal language model of this text part, or that computes other logits.
    """
    whole: Any = hf
    inner = getattr(getattr(whole, "model", None), "language_model", None)
    if not isinstance(inner, PreTrainedModel):
        return hf
    name, text = type(hf).__name__, inner.config
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        made_by: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
        with torch.device("meta"):
            alone: Any = made_by(copy.deepcopy(text))
        alone.config, alone.model = text, inner
    elif text.model_type in _ON_TEXT:
        alone = _on_text(_ON_TEXT[text.model_type], inner)
    else:
        raise HydrascopeError(
            f"a {name} sees images, and transformers has no language model of its text part ({text.model_type}) alone: "
            "it can't be measured"
        )
    alone.generation_config, alone.lm_head = whole.generation_config, whole.get_output_embeddings()
    alone.train(hf.training)
    require_same_logits(name, hf, alone)
    made: PreTrainedModel = alone
    return made


def _on_text(made_by: Any, inner: PreTrainedModel) -> Any:
    """Return a language model with those modules of `inner` that hold weights."""
    settings = {
        key: value for key, value in inner.config.to_dict().items() if key not in ("model_type", "architectures")
    }
    turns = settings["rope_parameters"]
    kind = "default" if turns["rope_type"] == "mrope" else turns["rope_type"]
    plain = {key: value for key, value in turns.items() if not key.startswith("mrope_") and key != "type"}
    config = made_by.config_class(**{**settings, "rope_parameters": {**plain, "rope_type": kind}})
    config._attn_implementation = inner.config._attn_implementation
    with init_empty_weights(include_buffers=False):
        alone: Any = made_by(config)
    _share(inner, alone.model)
    alone.model.rotary_emb.to(inner.get_input_embeddings().weight.device)
    return alone


def _share(given: nn.Module, made: nn.Module) -> None:
    """Put modules of `given` that hold weights in the places of those of `made`."""
    for name, child in given.named_children():
        if next(child.parameters(recurse=False), None) is None:
            _share(child, getattr(made, name))
        else:
            setattr(made, name, child)
