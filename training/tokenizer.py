"""The model's own tokenizer: byte-level BPE learnt from the corpus, `<s>` before every document."""

import random
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def learn(texts: Sequence[str], vocabulary: int, seed: int, sample: int = 30_000) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocabulary` tokens, learnt from a sample of the documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(random.Random(seed).sample(texts, min(sample, len(texts))), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=512
    )


def pack(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int) -> list[list[int]]:
    """The documents one after another, each behind its `<s>`, cut into blocks of `length` tokens."""
    blocks: list[list[int]] = []
    rest: list[int] = []
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(list(texts[start : start + 1000]))["input_ids"]:
            rest.extend(ids)
        whole = len(rest) // length * length
        blocks.extend(rest[i : i + length] for i in range(0, whole, length))
        rest = rest[whole:]
    return blocks
