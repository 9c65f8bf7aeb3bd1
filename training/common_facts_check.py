"""Check the prompt set `common-facts` on SmolLM2 and Gemma 3, and count the prompts that they answer.

    hydrascope fetch smollm2
    hydrascope fetch gemma3-270m
    python -m training.common_facts_check smollm2 gemma3-270m

The order of the models is that of the columns of the table. The status is 1 if an answer or a foil has more than one
token, a prompt and its twin differ in length, two prompts have the same tokens, or a length in the table is wrong.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import hydrascope as hs
from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens
from hydrascope.utils import assets
from training.common_facts import Fact, table
from training.lines import read


def complaints(model: hs.models.LanguageModel, facts: Sequence[Fact], column: int) -> Iterator[str]:
    """Yield a line for each error in the set on a model, which has a column of lengths in the table."""
    prompts = hs.load_prompts("common-facts").prompts
    own, twins = tokenize(model, prompts), counterfactual_tokens(model, prompts)
    for prompt, tokens, twin in zip(prompts, own, twins, strict=True):
        for word in (prompt.answer, prompt.foil):
            if len(model.encode(f"{prompt.text} {word}")) != len(tokens) + 1:
                yield f"{prompt.text}: {word} is more than one token"
        if len(tokens) != len(twin):
            yield f"{prompt.text}: {len(tokens)} tokens, but its twin has {len(twin)}"
    if len(set(map(tuple, own))) != len(own):
        yield "two prompts have the same tokens"
    foil_tokens(model, prompts)
    for fact in facts:
        length = len(model.encode(f"is {fact.subject}")) - len(model.encode("is"))
        if length != fact.lengths[column]:
            yield f"{fact.relation}: {fact.subject} has {length} tokens, not {fact.lengths[column]}"


@torch.no_grad()
def answered(model: hs.models.LanguageModel, batch: int = 32) -> list[bool]:
    """Return for each prompt whether the most likely next token is the answer's first."""
    prompts = hs.load_prompts("common-facts").prompts
    tokens, answers = tokenize(model, prompts), answer_tokens(model, prompts)
    by_length = defaultdict(list)
    for index, ids in enumerate(tokens):
        by_length[len(ids)].append(index)
    right = [False] * len(prompts)
    for equal in by_length.values():  # so that nothing is padded
        for start in range(0, len(equal), batch):
            chosen = equal[start : start + batch]
            logits = model.hf(input_ids=torch.tensor([tokens[index] for index in chosen]), logits_to_keep=1).logits
            for index, best in zip(chosen, logits[:, -1].argmax(-1).tolist(), strict=True):
                right[index] = best == answers[index]
    return right


def main(names: Sequence[str]) -> int:
    """Print the number of prompts that each model answers, by relation, and the errors."""
    facts, relations = table(), [line["relation"] for line in read(assets.prompt_path("common-facts"))]
    counts, right, wrong = Counter(relations), [], []
    for column, name in enumerate(names):
        model = hs.load_model(name)
        wrong += [f"{name}: {complaint}" for complaint in complaints(model, facts, column)]
        right.append(answered(model))
    every = [*map(any, zip(*right, strict=True))]
    print(*(f"{head:>12}" for head in ("prompts", *(Path(name).stem for name in names), "either")), " relation")
    for relation in [*dict.fromkeys(fact.relation for fact in facts), "all"]:
        chosen = [relation in (one, "all") for one in relations]
        sums = [sum(ok for ok, here in zip(oks, chosen, strict=True) if here) for oks in (*right, every)]
        print(*(f"{number:12,}" for number in (counts[relation] or len(relations), *sums)), f" {relation}")
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
