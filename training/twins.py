"""The facts' twins: each fact's prompt about another subject, and that one's answer as the foil.

It needs the facts and the built-in model's tokenizer, none of the packages that the facts come from:
`python -m training.twins` gives `world-facts.jsonl` its foils and twins anew, always the same.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from transformers import AutoTokenizer

from hydrascope.utils import assets
from training.lines import Line, read, write


def with_twins(facts: Sequence[Line], tokenizer: Any, seed: int = 0) -> list[Line]:
    """Each fact with a `foil` and a `counterfactual`: the answer and the subject of another fact of its relation.

    The other fact is drawn at random from those whose answer begins with another token (where there is none, is
    another), and of them from those that make the twin as long in tokens, or as near to it as any.
    """

    rng = random.Random(seed)
    relations = defaultdict(list)
    for fact in facts:
        relations[fact["relation"]].append(fact)

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text)["input_ids"])

    @cache
    def length(text: str) -> int:
        return len(tokens(text))

    first = {fact["prompt"]: tokens(f"{fact['prompt']} {fact['answer']}")[length(fact["prompt"])] for fact in facts}

    def twin(fact: Line) -> Line:
        wrong = [other for other in relations[fact["relation"]] if other["answer"] != fact["answer"]]
        told_apart = [other for other in wrong if first[other["prompt"]] != first[fact["prompt"]]] or wrong
        drawn = rng.sample(told_apart, len(told_apart))

        def off(other: Line) -> int:
            return abs(length(about(fact, other["subject"])) - length(fact["prompt"]))

        return next((other for other in drawn if off(other) == 0), None) or min(drawn, key=off)

    return [_paired(fact, twin(fact)) for fact in facts]


def about(fact: Line, subject: str) -> str:
    """The fact's prompt with `subject` for its own, which is the last that reads like it."""
    start, _, end = fact["prompt"].rpartition(fact["subject"])
    return start + subject + end


def _paired(fact: Line, twin: Line) -> Line:
    return {
        "prompt": fact["prompt"],
        "answer": fact["answer"],
        "foil": twin["answer"],
        "subject": fact["subject"],
        "counterfactual": about(fact, twin["subject"]),
        "relation": fact["relation"],
    }


if __name__ == "__main__":
    file = assets.prompt_path("world-facts")
    write(with_twins(read(file), AutoTokenizer.from_pretrained(assets.model_path("built-in"))), file)
