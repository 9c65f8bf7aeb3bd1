"""A model of which only the tokenizer matters, and byte-level BPE tokenizers, as GPT-2's, learnt from a few texts."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hydrascope.models.language_model import LanguageModel


def speaking(tokenizer: Any, context: int = 64, vocabulary: int = 0) -> LanguageModel:
    """A model called `toy` with `tokenizer`, or with none, that takes `context` tokens out of `vocabulary`."""
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=context,
    )
    return LanguageModel(LlamaForCausalLM(config), tokenizer, name="toy")


def byte_level(texts: Sequence[str], vocabulary: int = 600, *, trimmed: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of `texts`; whether it leaves the space before a word out of its offsets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trimmed)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
