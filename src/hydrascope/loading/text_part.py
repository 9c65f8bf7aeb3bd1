"""Take the language model out of a model that also sees images, as Gemma 3 does."""

import copy
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from hydrascope.loading.wrappers import require_same_logits
from hydrascope.utils.errors import HydrascopeError


def class_to_read(config: PretrainedConfig) -> Any:
    """Return the class that reads a model: of language alone, or of images and text."""
    sees = type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def text_part(hf: PreTrainedModel) -> PreTrainedModel:
    """Return the language model inside a model of images and text; others as they are.

    It shares its modules with `hf`, and has no weights of its own.

    Raises:
        HydrascopeError: transformers has no causal language model of this text part, or that computes other logits.
    """
    whole: Any = hf
    inner = getattr(getattr(whole, "model", None), "language_model", None)
    if not isinstance(inner, PreTrainedModel):
        return hf
    name, text = type(hf).__name__, inner.config
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise HydrascopeError(
            f"a {name} sees images, and transformers has no language model of its text part ({text.model_type}) alone: "
            "it can't be measured"
        )
    made_by: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    with torch.device("meta"):
        alone: Any = made_by(copy.deepcopy(text))
    alone.config, alone.generation_config = text, whole.generation_config
    alone.model, alone.lm_head = inner, whole.get_output_embeddings()
    alone.train(hf.training)
    require_same_logits(name, hf, alone)
    made: PreTrainedModel = alone
    return made
