"""The corpus: prose of Debian packages, as blocks of tokens of a tokenizer that is learnt from it."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import AutoTokenizer

from training import prose, tokenizer


@dataclass(frozen=True)
class Corpus:
    """A tokenizer and its text.

    Attributes:
        tokenizer: the tokenizer.
        blocks: the training text, `[block, token]`.
        held_out: passages that are never trained on.
        about: the number of documents, and the hash of the prose.
    """

    tokenizer: Any
    blocks: Int[np.ndarray, "block token"]
    held_out: list[str]
    about: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write the corpus to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        np.save(folder / "blocks.npy", self.blocks.astype(np.uint16))
        (folder / "texts.json").write_text(json.dumps({"held_out": self.held_out, "about": self.about}), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Corpus":
        """Read the corpus that `write` wrote."""
        texts = json.loads((folder / "texts.json").read_text("utf-8"))
        bpe = AutoTokenizer.from_pretrained(folder / "tokenizer")
        return cls(bpe, np.load(folder / "blocks.npy").astype(np.int64), **texts)


def make_corpus(settings: Mapping[str, Any], folder: Path) -> Corpus:
    """Return the corpus in a folder; make it first if it isn't there, from packages that apt-get downloads.

    Args:
        settings: the study's settings.
        folder: the folder of the corpus.
    """
    if not (folder / "texts.json").exists():
        sources = prose.passages(prose.fetch(folder / "debs"))
        trained, held_out = ([" ".join(p) for each in part.values() for p in each] for part in prose.split(sources))
        random.Random(settings["seed"]).shuffle(trained)
        bpe = tokenizer.learn(trained, settings["shape"]["vocabulary"], settings["seed"])
        blocks = np.array(tokenizer.pack(bpe, trained, settings["length"]))
        about = {"documents": len(trained), "tokens": blocks.size, "sha256": prose.digest(sources)}
        Corpus(bpe, blocks, held_out, about).write(folder)
    return Corpus.read(folder)
