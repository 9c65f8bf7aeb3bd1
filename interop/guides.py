"""Run the code of a guide and compare its pairs of blocks: another tool's, then hydrascope's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import CONFIGS, tiny
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from tutorial import blocks

DOCS = Path(__file__).parents[1] / "docs"
NAME = "openai-community/gpt2"
#: A word with the space before it, or another character.
_TOKEN = r" ?\w+|[^\w\s]"


def save_small_gpt2(folder: Path, page: str) -> None:
    """Save a random GPT-2 whose tokens are the words of a page's texts, each with the space before it."""
    texts = re.findall(r'"([^"\n]*)"', page)
    words = sorted({word for text in texts for word in re.findall(_TOKEN, text)})
    vocabulary = {word: number for number, word in enumerate(["<|endoftext|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    end = "<|endoftext|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)
    fast.save_pretrained(folder)
    settings = {**CONFIGS["gpt2"][1], "vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 0}
    CONFIGS["guide"] = ("gpt2", settings)
    tiny("guide", torch.float64).hf.save_pretrained(folder)


def pairs(page: str, folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the heading, their numbers and ours of each pair of blocks, all run in one namespace.

    The page's model is replaced by that of `folder`, and computes in float64.
    """
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks(page)):
        code = block.code.replace(NAME, str(folder)).replace("torch.float32", "torch.float64")
        # nnsight reads the source of a trace from its file.
        file = folder / f"block_{number}.py"
        file.write_text(code)
        exec(compile(code, str(file), "exec"), namespace)
        if "ours" in namespace:
            heading = re.findall(r"^## (.+)$", page[: page.index(block.code)], re.MULTILINE)[-1]
            theirs, ours = (np.array(namespace.pop(name)) for name in ("theirs", "ours"))
            yield heading, theirs, ours


def require_same(name: str, folder: Path) -> None:
    """Require that both blocks of each pair of a guide give the same numbers, none of them nothing.

    Raises:
        AssertionError: they differ, or the page has fewer pairs than subjects.
    """
    page = (DOCS / name).read_text()
    save_small_gpt2(folder, page)
    found = [*pairs(page, folder)]
    assert len(found) == 6
    for heading, theirs, ours in found:
        assert np.abs(theirs).max() > 1e-3, heading
        np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-9, err_msg=heading)
