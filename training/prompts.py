"""The prompt sets that are shipped: every fact in its left-out wording, and cuts of held-out running text."""

import random

from training.facts import Fact
from training.lines import Line
from training.prose import Prose
from training.templates import held_out, prompt


def world_facts(facts: list[Fact]) -> list[Line]:
    """Each fact once, in the wording that no training text used for it."""
    return [
        {
            "prompt": prompt(fact, left),
            "answer": fact.answer,
            "subject": fact.subject,
            "relation": fact.relation,
        }
        for fact, left in zip(facts, held_out(facts), strict=True)
    ]


def passages(prose: Prose, seed: int = 1) -> list[Line]:
    """Held-out prose, each passage cut once, 15 to 60 words in, before a word drawn at random: no model chose them."""
    rng = random.Random(seed)
    lines = []
    for passage in (passage for name in sorted(prose) for passage in prose[name]):
        words = " ".join(passage).split(" ")
        spots = [i for i in range(15, min(60, len(words))) if words[i].strip(".,;:!?").isalpha()]
        for i in rng.sample(spots, min(1, len(spots))):
            lines.append({"prompt": " ".join(words[:i]), "answer": words[i].strip(".,;:!?")})
    return random.Random(seed).sample(lines, len(lines))


def facts_in_text(facts: list[Fact], prose: Prose, count: int, seed: int) -> list[Line]:
    """Facts, in their left-out wording, after a few sentences of held-out prose."""
    rng = random.Random(seed)
    passages = [passage for name in sorted(prose) for passage in prose[name] if len(passage[0].split()) <= 45]
    lines = []
    for line in rng.sample(world_facts(facts), count):
        start: list[str] = []
        for sentence in rng.choice(passages):
            if len(" ".join([*start, sentence]).split()) > 45:
                break
            start.append(sentence)
        lines.append({"prompt": " ".join([*start, line["prompt"]]), "answer": line["answer"]})
    return lines
