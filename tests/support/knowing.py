"""Models of which only the tokenizer matters, whose tokenizers know the words of the made sets."""

import re
from functools import cache

from speaking import byte_level, speaking
from transformers import AutoTokenizer

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts import agreement, docstring, gender, greater_than, ioi
from hydrascope.utils import assets


@cache
def knowing() -> LanguageModel:
    """A model that has a token for all words of the made sets, and reads numbers digit by digit."""
    nouns = [word for pair in (*agreement.SUBJECTS, *agreement.ATTRACTORS) for word in pair]
    words = [*nouns, *gender.WOMEN, *gender.MEN, *docstring.WORDS, "is", "are", "she", "he"]
    sentences = [*ioi.TEMPLATES, *agreement.TEMPLATES, *gender.TEMPLATES, *greater_than.TEMPLATES]
    plain = [re.sub(r"[\d{}]|\{\w+\}", "", sentence) for sentence in sentences]
    return speaking(byte_level([f" {word}" for word in words] * 9 + plain, 6000), 512)


@cache
def built_in() -> LanguageModel:
    """A model with the tokenizer of the built-in model, which knows few words."""
    return speaking(AutoTokenizer.from_pretrained(assets.model_path("built-in")), 512)
