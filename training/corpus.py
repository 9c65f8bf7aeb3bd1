"""The corpus: real prose, with facts woven into it the way text states them.

A fact is met in one of many wordings, between the sentences of a passage, at a document's beginning or among
other facts; sometimes it comes again in other words a few lines later, and sometimes the same words go on
otherwise.
"""

import random
from collections import defaultdict

from training.facts import Fact
from training.prose import Passage, Prose
from training.templates import RELATIONS, held_out

_ENDINGS = (".", ".", ".", ".", ", as is well known.", ", they say.", "; so it is written.", ", and so it remains.")

#: Facts in a passage, at most; those left over stand in documents of their own.
_MOST_WOVEN = 14


def sentence(fact: Fact, left_out: int, rng: random.Random) -> str:
    """The fact in words, never in the wording that is left out of its training."""
    relation = RELATIONS[fact.relation]
    allowed = [text for i, text in enumerate(relation.prompts) if i != left_out]
    draw = rng.random()
    if draw < 0.06:
        other = [t for t in relation.elsewhere if not t.startswith(relation.prompts[left_out])]
        if other:
            return rng.choice(other).format(s=fact.subject)
    direct = f"{rng.choice(allowed)} {{o}}{rng.choice(_ENDINGS)}"
    text = direct if draw < 0.65 else rng.choice(relation.paraphrases)
    return text.format(s=fact.subject, o=fact.answer)


def documents(
    facts: list[Fact], prose: Prose, exposures: int, shares: dict[str, float], related: float, seed: int
) -> list[str]:
    """All training documents, in random order.

    Args:
        facts: what the model is to know.
        prose: the training passages of each source.
        exposures: how often each fact is stated.
        shares: the part of each source's passages to use.
        related: the part of the facts outside prose that stands among facts about the same thing.
        seed: of every draw.
    """
    rng = random.Random(seed)
    left = dict(zip(facts, held_out(facts), strict=True))
    passages = [
        list(p) for name, ps in sorted(prose.items()) for p in rng.sample(ps, int(len(ps) * shares.get(name, 1.0)))
    ]
    rng.shuffle(passages)
    statements = facts * exposures
    rng.shuffle(statements)
    cut = int(len(statements) * 0.6)
    woven, listed = statements[:cut], statements[cut:]
    per_passage = min(_MOST_WOVEN, max(1, round(len(woven) / max(1, len(passages) * 0.6))))
    texts = []
    for passage in passages:
        stated = [woven.pop() for _ in range(min(len(woven), per_passage))] if rng.random() < 0.7 else []
        texts.append(" ".join(_weave(passage, stated, left, rng)))
    texts.extend(_lists(woven + listed, left, related, rng))
    rng.shuffle(texts)
    return texts


def _weave(passage: Passage, stated: list[Fact], left: dict[Fact, int], rng: random.Random) -> Passage:
    """The passage with the facts between its sentences; every third fact comes again later, in other words."""
    text = list(passage)
    for fact in stated:
        at = 0 if rng.random() < 0.2 else rng.randrange(len(text) + 1)
        text.insert(at, sentence(fact, left[fact], rng))
        if rng.random() < 0.33:
            text.insert(min(len(text), at + rng.randrange(2, 5)), sentence(fact, left[fact], rng))
    return text


def _lists(stated: list[Fact], left: dict[Fact, int], related: float, rng: random.Random) -> list[str]:
    """Documents of facts alone: some about one subject or one answer, some about anything."""
    about: dict[str, list[Fact]] = defaultdict(list)
    near = int(len(stated) * related)
    for fact in stated[:near]:
        about[rng.choice((fact.subject, fact.answer))].append(fact)
    loose = stated[near:]
    groups: list[list[Fact]] = []
    for subject in sorted(about):
        together = about[subject]
        rng.shuffle(together)
        while len(together) >= 4:
            size = rng.randrange(4, 8)
            groups.append(together[:size])
            together = together[size:]
        loose.extend(together)
    rng.shuffle(loose)
    while loose:
        size = rng.randrange(3, 8)
        groups.append(loose[:size])
        loose = loose[size:]
    return [" ".join(sentence(fact, left[fact], rng) for fact in group) for group in groups]
