"""Real prose from Debian packages whose licences allow it: what the corpus is made of, besides facts.

| source | package | licence |
|---|---|---|
| Jane Austen's six novels | r-cran-janeaustenr | public domain (the package: MIT) |
| King James Bible | bible-kjv-text, read with bible-kjv | public domain |
| WordNet 3.0, glosses and examples | wordnet-base | WordNet 3.0 licence |
| Jargon File 4.4.7 | dict-jargon | public domain |

A *passage* is a list of sentences that belong together, 60 to 200 words long.
"""

import gzip
import hashlib
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Debian 12's versions, and the SHA-256 of each file.
PACKAGES = {
    "bible-kjv": "4.38",
    "bible-kjv-text": "4.38",
    "dict-jargon": "4.4.7-3.1",
    "r-cran-janeaustenr": "1.0.0-1",
    "wordnet-base": "1:3.0-37",
}

#: Every fiftieth passage of a source is kept from training.
HELD_OUT = 50

Passage = list[str]

#: The passages of each source.
Prose = dict[str, list[Passage]]


def fetch(folder: Path) -> Path:
    """Unpack the packages (downloaded with apt-get where `folder` doesn't hold them) and return the root."""
    root = folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        if not list(folder.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", f"{name}={version}"], cwd=folder, check=True)
        (package,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


def passages(root: Path) -> Prose:
    """Every source's passages, in the order of the source."""
    return {
        "austen": list(_group(_austen(root))),
        "bible": list(_group(_bible(root))),
        "wordnet": list(_group(_wordnet(root))),
        "jargon": list(_group(_jargon(root))),
    }


def split(sources: Prose) -> tuple[Prose, Prose]:
    """The passages of each source for training, and those held out."""
    train = {name: [p for i, p in enumerate(ps) if i % HELD_OUT] for name, ps in sources.items()}
    kept = {name: [p for i, p in enumerate(ps) if not i % HELD_OUT] for name, ps in sources.items()}
    return train, kept


def digest(sources: Prose) -> str:
    """SHA-256 of all prose: the corpus is the same wherever this is the same."""
    text = "\n".join(sentence for source in sources.values() for passage in source for sentence in passage)
    return hashlib.sha256(text.encode()).hexdigest()


def _group(paragraphs: Iterable[str], shortest: int = 60, longest: int = 200) -> Iterator[Passage]:
    """Paragraphs joined until they make a passage; a longer one is cut between sentences."""
    passage: Passage = []
    words = 0
    for paragraph in paragraphs:
        for sentence in _sentences(paragraph):
            passage.append(sentence)
            words += len(sentence.split())
            if words >= longest:
                yield passage
                passage, words = [], 0
        if words >= shortest:
            yield passage
            passage, words = [], 0


def _sentences(paragraph: str) -> list[str]:
    text = " ".join(paragraph.split())
    parts = re.split(r"(?<=[.!?;:])(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)(?<!Esq\.)\s+(?=[\"“'(]?[A-Z])", text)
    return [part for part in parts if part]


def _austen(root: Path) -> Iterator[str]:
    """R's lazy-load file: per novel a length and a zlib stream of a serialised character vector of lines."""
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    start = 0
    while start < len(data):
        stream = zlib.decompressobj()
        novel = stream.decompress(data[start + 4 :])
        start = len(data) - len(stream.unused_data)
        paragraph: list[str] = []
        for line in _r_strings(novel):
            if line.strip():
                paragraph.append(line)
                continue
            text = " ".join(paragraph)
            paragraph = []
            if text and not re.match(r"(chapter|volume|by |\(1|the end|finis)", text, re.IGNORECASE):
                yield text.replace("--", " -- ").replace("_", "")


def _r_strings(data: bytes) -> Iterator[str]:
    """The strings of a serialised (XDR, version 3) character vector."""
    at = 14  # format, three versions
    at += 4 + struct.unpack(">I", data[at : at + 4])[0]  # native encoding
    (count,) = struct.unpack(">I", data[at + 4 : at + 8])
    at += 8
    for _ in range(count):
        (size,) = struct.unpack(">i", data[at + 4 : at + 8])
        at += 8
        yield data[at : at + size].decode("utf-8", "replace")
        at += size


def _bible(root: Path) -> Iterator[str]:
    """A chapter a paragraph, a verse a sentence; only the package's own program reads its compressed text."""
    run = subprocess.run(
        [str(root / "usr/bin/bible"), "-p", str(root / "usr/lib"), "-f"],
        input="Gen1:1-Rev22:21\n",
        capture_output=True,
        text=True,
        check=True,
    )
    chapter = ""
    verses: list[str] = []
    for line in run.stdout.splitlines():
        match = re.match(r"(?:bible\(KJV\)[^>]*> )?(\S*?\d+):\d+ (.*)", line)
        if not match:
            continue
        if match[1] != chapter and verses:
            yield " ".join(verses)
            verses = []
        chapter = match[1]
        verses.append(match[2])
    yield " ".join(verses)


def _wordnet(root: Path) -> Iterator[str]:
    """A synset a paragraph, neighbours in meaning beside each other as in WordNet's own files."""
    kinds = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
    for suffix, kind in kinds.items():
        for line in (root / f"usr/share/wordnet/data.{suffix}").read_text().splitlines():
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            lemmas = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(int(fields[3], 16))]
            names = " or ".join(dict.fromkeys(lemmas[:3]))
            yield f"{names[0].upper()}{names[1:]} ({kind}): {gloss.strip().rstrip(';')}."


def _jargon(root: Path) -> Iterator[str]:
    """The lexicon's explanations: indented paragraphs, without cross-reference braces and pronunciations."""
    text = gzip.decompress((root / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode("utf-8", "replace")
    for block in text.split("\n\n"):
        if block.startswith("    ") and len(block.split()) > 12:
            plain = " ".join(block.split())
            yield re.sub(r"[{}]", "", plain).replace("“", '"').replace("”", '"').replace("’", "'").replace("‘", "'")


def clean(folder: Path) -> None:
    """Remove what `fetch` unpacked; the packages stay."""
    shutil.rmtree(folder / "root", ignore_errors=True)
