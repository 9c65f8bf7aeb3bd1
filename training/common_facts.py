"""Make the prompt set `common-facts`: facts that small language models know.

`common_facts.tsv` lists the facts: relation, group, subject, answer, and the number of tokens of a space and the
subject in SmolLM2 and in Gemma 3. Subjects of a group are of one kind (days, verbs, …), so that foils are plausible.
`common_facts_near.tsv` lists pairs of answers that may both pass for right. The wordings are in this file.

`python -m training.common_facts` writes `common-facts.jsonl`, always the same. It needs only the built-in model's
tokenizer. `python -m training.common_facts_check` checks the set on the two models.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from hydrascope.utils import assets
from training.lines import Line, write

_HERE = Path(__file__).parent

#: The wordings of each relation; its facts take them in turn. `{}` is the subject, and a space stands before it. The
#: examples in wordings (Paris, Texas, dog, …) are not among the facts.
WORDINGS = {
    "capital": (
        "The capital of France is the city of Paris, and the capital of {} is the city of",
        "The capital of {} is the city of",
    ),
    "capital of": (
        "In geography class we learned that {} is the capital of",
        "Everyone knows that {} is the capital of",
    ),
    "continent": ("The nation of {} lies on the continent of", "The country of {} is on the continent of"),
    "language": ("In {}, the official language is", "The official language of {} is"),
    "currency": (
        "The currency of Japan is the yen, and the currency of {} is the",
        "In Japan the currency is the yen, and in {} it is the",
    ),
    "nationality": (
        "Someone from France is French, and someone from {} is",
        "People from France are French, and people from {} are",
    ),
    "city in": (
        "The city of Lyon is in France, and the city of {} is in",
        "The large city of {} is in the country of",
    ),
    "landmark in": (
        "The famous {} is located in the country of",
        "The world-famous {} is found in the country of",
    ),
    "US city in": (
        "In the United States, {} is a city in the state of",
        "The city of {} is in the state of",
    ),
    "US capital": ("The state capital of Texas is Austin, and the state capital of {} is",),
    "US capital of": (
        "The city of {} is the capital of the state of",
        "In the United States, {} is the capital of the state of",
    ),
    "US abbreviation": ("The US abbreviation for Texas is TX, and the abbreviation for {} is",),
    "US abbreviation of": ("The abbreviation {} stands for the US state of",),
    "symbol": ("The chemical symbol for gold is Au, and the chemical symbol for {} is",),
    "element": ("The chemical symbol Au stands for gold, and the chemical symbol {} stands for",),
    "kind": ("Carrot is a vegetable, and {} is a",),
    "profession": ("Shakespeare was a playwright, and {} was a",),
    "brand": ("The brand Samsung comes from Korea, and the brand {} comes from",),
    "color": ("The usual color of the sky is blue, and the usual color of {} is",),
    "letters": ("Continue the list: {},", "In order: {},"),
    "calendar": ("Continue the list: {},", "In order: {},"),
    "numbers": ("Continue the list: {},", "In order: {},"),
    "opposite": (
        "The antonym of hot is cold, and the antonym of {} is",
        "The opposite of hot is cold, and the opposite of {} is",
    ),
    "feminine": ("Male and female: king and queen, {} and",),
    "agent": ("Someone who works is a worker, and someone who {} is a",),
    "quality": (
        "The state of being kind is kindness, and the state of being {} is",
        "The quality of being kind is kindness, and the quality of being {} is",
    ),
    "plural": ("The plural of dog is dogs, and the plural of {} is",),
    "past tense": ("The past tense of walk is walked, the past tense of do is did, and the past tense of {} is",),
    "comparative": ("The comparative form of old is older, and the comparative form of {} is",),
    "superlative": ("The superlative of old is oldest, and the superlative of {} is",),
    "Spanish word": ("The Spanish word casa means house, and the Spanish word {} means",),
    "French word": ("The French word maison means house, and the French word {} means",),
    "German word": ("The German word Haus means house, and the German word {} means",),
}


@dataclass(frozen=True)
class Fact:
    """Hold a line of the table; `lengths` counts the subject's tokens in SmolLM2 and in Gemma 3."""

    relation: str
    group: str
    subject: str
    answer: str
    lengths: tuple[int, int]


def table() -> list[Fact]:
    """Read the facts, relation by relation."""
    return [Fact(*texts, (int(smollm2), int(gemma3))) for *texts, smollm2, gemma3 in _rows("common_facts.tsv")]


def near() -> set[tuple[str, frozenset[str]]]:
    """Read the pairs of answers, each with its relation, that are not used as foils of each other."""
    return {(relation, frozenset(pair)) for relation, *pair in _rows("common_facts_near.tsv")}


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (_HERE / name).read_text(encoding="utf-8").splitlines()]


def lines(facts: Sequence[Fact], first_token: Callable[[str], int], seed: int = 0) -> list[Line]:
    """Return a line for each fact, with a foil and a twin; the first lines are balanced over relations.

    The twin is a fact of the same relation with another answer and an equally long subject. Facts of the same group are
    preferred, then those that were used least, then chance decides. The foil is the twin's answer.

    Args:
        facts: the facts, relation by relation.
        first_token: gives the token by which the built-in model reads an answer; it differs between answer and foil.
        seed: decides what chance decides.

    Raises:
        ValueError: a fact has no twin.
    """
    rng, too_near = random.Random(seed), near()
    relations = defaultdict(list)
    for fact in facts:
        relations[fact.relation].append(fact)
    placed = []
    for relation, known in relations.items():
        drawn: Counter[str] = Counter()
        made = []
        for number, fact in enumerate(known):
            wording = WORDINGS[relation][number % len(WORDINGS[relation])]
            others = [
                other
                for other in rng.sample(known, len(known))
                if other.lengths == fact.lengths
                and (relation, frozenset((fact.answer, other.answer))) not in too_near
                and first_token(other.answer) != first_token(fact.answer)
                and other.answer not in words(wording.format(fact.subject))
                and fact.answer not in words(other.subject)
            ]
            if not others:
                raise ValueError(f"{relation}: {fact.subject} has no twin: add one of its length, or leave it out")
            twin = min(others, key=lambda other: (other.group != fact.group, drawn[other.subject]))
            drawn[twin.subject] += 1
            made.append(_line(wording, fact, twin))
        rng.shuffle(made)
        placed += [((place + 0.5) / len(made), relation, line) for place, line in enumerate(made)]
    return [line for _, _, line in sorted(placed, key=lambda one: one[:2])]


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(re.findall(r"[\w'-]+", text))


def _line(wording: str, fact: Fact, twin: Fact) -> Line:
    return {
        "prompt": wording.format(fact.subject),
        "answer": fact.answer,
        "foil": twin.answer,
        "subject": fact.subject,
        "counterfactual": wording.format(twin.subject),
        "relation": fact.relation,
    }


def built_in_first_token() -> Callable[[str], int]:
    """Return a function that gives the first token of an answer in the built-in model."""
    tokenizer = AutoTokenizer.from_pretrained(assets.model_path("built-in"))
    return lambda answer: tokenizer(f"is {answer}", add_special_tokens=False)["input_ids"][1]


if __name__ == "__main__":
    write(lines(table(), built_in_first_token()), assets.prompt_path("common-facts"))
