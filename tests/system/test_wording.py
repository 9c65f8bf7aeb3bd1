"""The wording that recall is measured in must never have been met in training."""

import pytest

facts = pytest.importorskip("training.facts", reason="needs training/requirements.txt").facts
templates = pytest.importorskip("training.templates")
RELATIONS, held_out, prompt = templates.RELATIONS, templates.held_out, templates.prompt


def _said(fact, left):
    """Every sentence that training may state a fact with, up to its ending."""
    relation = RELATIONS[fact.relation]
    for i, text in enumerate(relation.prompts):
        if i != left:
            yield text.format(s=fact.subject) + " " + fact.answer
    for text in relation.paraphrases:
        yield text.format(s=fact.subject, o=fact.answer)
    for text in relation.elsewhere:
        if not text.startswith(relation.prompts[left]):
            yield text.format(s=fact.subject)


def test_no_sentence_of_the_corpus_begins_with_a_left_out_prompt_and_its_answer():
    known = facts()
    left = held_out(known)
    kept = {f"{prompt(fact, k)} {fact.answer}" for fact, k in zip(known, left, strict=True)}
    for fact, k in zip(known, left, strict=True):
        for text in _said(fact, k):
            words = text.rstrip(".").split(" ")
            begun = {" ".join(words[:i]) for i in range(1, len(words) + 1)}
            assert not begun & kept, text


def test_every_wording_of_a_relation_is_left_out_of_some_fact():
    known = facts()
    left = held_out(known)
    for name, relation in RELATIONS.items():
        used = {k for fact, k in zip(known, left, strict=True) if fact.relation == name}
        assert used == set(range(len(relation.prompts)))
