"""Make the texts of the study `context`: beginnings of sentences, each with the text that stands before it.

`python -m training.sentences` writes `studies/context/sentences.json`, always the same. It needs the Debian packages of
`prose.py`, and SmolLM2 and Gemma 3 to count tokens. A sentence is the first of a paragraph, so that a newline stands
before it, and is cut before a word that is drawn at random. No model chose it. Texts before sentences don't overlap.
"""

import json
import random
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import hydrascope as hs
from hydrascope.utils import assets
from training import prose
from training.lines import read
from training.recipe import WORK


def _verses(root: Path) -> Iterable[str]:
    """Return the sentences of the Bible, as if each were a paragraph: its chapters begin too much alike."""
    return (sentence for chapter in prose._bible(root) for sentence in prose._sentences(chapter))


PATH = Path(__file__).parents[1] / "studies" / "context" / "sentences.json"
#: The sources, the paragraphs of each, and the licence.
SOURCES = {
    "austen": (prose._austen, "Jane Austen's novels, Debian package r-cran-janeaustenr 1.0.0-1, public domain"),
    "bible": (_verses, "King James Bible, Debian package bible-kjv-text 4.38, public domain"),
    "jargon": (prose._jargon, "Jargon File 4.4.7, Debian package dict-jargon 4.4.7-3.1, public domain"),
}
#: The sentences of each source: a third of those to explore, and of those to confirm.
COUNTS = {"austen": (11, 32), "bible": (11, 32), "jargon": (10, 32)}
#: The characters before a sentence that hold no other one, and the tokens of each model that are kept of them.
BEFORE, TOKENS = 3000, 512
MODELS = ("smollm2", "gemma3-270m")
#: The words of a sentence before the cut.
SHORTEST, LONGEST = 10, 24


def texts(seed: int = 0) -> list[dict[str, str]]:
    """Return the sentences: those to explore first, then those to confirm, each in turn of one source."""
    root = prose.fetch(WORK / "debs")
    names = ("passages", "contexts", "demo")
    shipped = " ".join(line["prompt"] for name in names for line in read(assets.prompt_path(name)))
    models = [hs.load_model(name) for name in MODELS]
    explored, confirmed = [], []
    for source, (some, others) in COUNTS.items():
        drawn = [
            text | {"before": _shortened(text["before"], models)}
            for text in _draw(source, root, shipped, some + others, random.Random(seed))
        ]
        explored.append(drawn[:some])
        confirmed.append(drawn[some:])
    return [*_in_turn(explored), *_in_turn(confirmed)]


def _in_turn(sources: list[list[dict[str, str]]]) -> list[dict[str, str]]:
    return [text for together in zip_longest(*sources) for text in together if text]


def _draw(source: str, root: Path, shipped: str, count: int, rng: random.Random) -> list[dict[str, str]]:
    """Draw the sentences of a source, in a random order, each with its text before it."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in SOURCES[source][0](root)]
    whole = "\n".join(paragraphs)
    found, taken = [], []
    candidates = list(_candidates(paragraphs, rng))
    rng.shuffle(candidates)
    for start, sentence in candidates:
        if start < BEFORE or sentence in shipped or any(abs(start - other) < BEFORE for other in taken):
            continue
        taken.append(start)
        before = whole[start - BEFORE : start].rstrip("\n")
        found.append({"source": source, "before": before.partition(" ")[2], "sentence": sentence})
        if len(found) == count:
            return found
    raise ValueError(f"{source} has too few sentences")


def _shortened(before: str, models: Sequence[hs.models.LanguageModel]) -> str:
    """Return the last words of a text, as few as make enough tokens in each model."""
    words = before.split(" ")

    def kept(dropped: int) -> str:
        return " ".join(words[dropped:])

    def enough(dropped: int) -> bool:
        return all(len(model.encode(kept(dropped))) >= TOKENS for model in models)

    return kept(bisect_left(range(len(words)), True, key=lambda dropped: not enough(dropped)) - 1)


def _candidates(paragraphs: list[str], rng: random.Random) -> Iterator[tuple[int, str]]:
    """Yield the place of each paragraph that begins with a long sentence, and the sentence up to the cut."""
    start = 0
    for paragraph in paragraphs:
        words = prose._sentences(paragraph)[0].split(" ") if paragraph else []
        spots = [spot for spot in range(SHORTEST, min(LONGEST, len(words))) if words[spot].isalpha()]
        if spots and re.match("[A-Z]", paragraph):
            yield start, " ".join(words[: rng.choice(spots)])
        start += len(paragraph) + 1


if __name__ == "__main__":
    made = {"sources": {source: licence for source, (_, licence) in SOURCES.items()}, "texts": texts()}
    PATH.write_text(json.dumps(made, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
