"""What is shipped of a finished pair of models: weights, tokenizer, prompt sets, and the numbers of the card."""

import json
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from training import evaluate, prompts
from training.build import sources
from training.facts import facts
from training.lines import Line, write
from training.prose import Passage, Prose, split
from training.recipe import ALL, DEPTH, MODEL, TWIN, Recipe
from training.twins import with_twins

ZOO = Path(__file__).parent.parent / "src" / "hydrascope" / "assets"
NAMES = {MODEL: "built-in", TWIN: "built-in-dropout"}
#: The model that goes on from the first of these once it is shipped.
DEPTH_NAME = "built-in-depth"


def finished() -> dict[Recipe, str]:
    """The models that there are to ship: the twin may not be trained yet."""
    return {recipe: name for recipe, name in NAMES.items() if recipe.finished}


_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

_DROPOUT = "{:g}, on embeddings, attention weights and what each sublayer adds"

#: The paper's number of prompts.
DEMO = 1209

#: Of the shipped contexts from prose, how many may have the same answer, and come from the same passage.
_SAME_ANSWER, _SAME_PASSAGE = 40, 4


def ship(seed: int = 0) -> None:
    """Copy the finished models into the package and write the prompt sets that depend on the first."""
    for recipe, name in finished().items():
        _copy(recipe, ZOO / "models" / name)
    model, tokenizer = evaluate.load(ZOO / "models" / NAMES[MODEL])
    _, held_out = split(sources())
    known = prompts.world_facts(facts())
    write(with_twins(known, tokenizer), ZOO / "prompts" / "world-facts.jsonl")
    write(prompts.passages(held_out), ZOO / "prompts" / "passages.jsonl")
    contexts = _contexts(model, tokenizer, held_out, seed)
    write(contexts, ZOO / "prompts" / "contexts.jsonl")
    right = [line for line, ok in zip(known, evaluate.correct(model, tokenizer, known), strict=True) if ok]
    write(_demo(right, contexts, seed), ZOO / "prompts" / "demo.jsonl")
    for recipe, name in finished().items():
        numbers = quality(recipe.folder, known, held_out)
        (ZOO / "models" / name / "quality.json").write_text(json.dumps(numbers, indent=1) + "\n")
        (ZOO / "models" / name / "README.md").write_text(card(recipe, name, numbers))


def ship_depth() -> None:
    """Copy the model whose sublayers failed into the package, and write its card."""
    folder = ZOO / "models" / DEPTH_NAME
    _copy(DEPTH, folder)
    _, held_out = split(sources())
    numbers = quality(DEPTH.folder, prompts.world_facts(facts()), held_out)
    (folder / "quality.json").write_text(json.dumps(numbers, indent=1) + "\n")
    said = {
        **asdict(DEPTH),
        "tokens": DEPTH.steps * DEPTH.batch * DEPTH.length / 1e6,
        "megabytes": (folder / "model.safetensors").stat().st_size / 1e6,
        **_tables(numbers),
    }
    (folder / "README.md").write_text((Path(__file__).parent / "card_depth.md").read_text().format(**said))


def quality(folder: Path, known: list[Line], held_out: Prose) -> dict[str, Any]:
    """Recall per relation in left-out wordings, and loss on held-out prose per source."""
    model, tokenizer = evaluate.load(folder)
    texts = {name: [" ".join(passage) for passage in passages] for name, passages in held_out.items()}
    return {
        "recall": {name: round(share, 4) for name, share in evaluate.recall(model, tokenizer, known).items()},
        "loss": {
            name: {unit: round(value, 4) for unit, value in evaluate.loss(model, tokenizer, some).items()}
            for name, some in {"all": [t for some in texts.values() for t in some], **texts}.items()
        },
        "parameters": model.num_parameters(),
    }


def _copy(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(recipe.folder / name, folder / name)


def _contexts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held_out: Prose, seed: int) -> list[Line]:
    """Cuts of held-out prose whose next word is one token that the model predicts, and facts in running text."""
    rng = random.Random(seed)
    passages = [passage for name in sorted(held_out) for passage in held_out[name]]
    found = [_predicted(model, tokenizer, passage) for passage in passages]
    cuts = [line for lines in found for line in rng.sample(lines, min(len(lines), _SAME_PASSAGE))]
    rng.shuffle(cuts)
    seen: Counter[str] = Counter()
    kept = []
    for line in cuts:
        seen[line["answer"]] += 1
        if seen[line["answer"]] <= _SAME_ANSWER:
            kept.append({**line, "kind": "prose"})
    stated = prompts.facts_in_text(facts(), held_out, count=700, seed=seed)
    right = evaluate.correct(model, tokenizer, stated)
    kept.extend({**line, "kind": "fact"} for line, ok in zip(stated, right, strict=True) if ok)
    return list({line["prompt"]: line for line in kept}.values())


def _predicted(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, passage: Passage) -> list[Line]:
    """The cuts of a passage before words of one token that the model predicts, read off one pass over all of it."""
    words = " ".join(passage).split(" ")[:60]
    ids = tokenizer(" ".join(words))["input_ids"]
    with torch.no_grad():
        best = model(input_ids=torch.tensor([ids])).logits[0].argmax(-1)
    lines = []
    for i in range(15, len(words)):
        word, start = words[i].strip(".,;:!?"), " ".join(words[:i])
        at = len(tokenizer(start)["input_ids"])
        if (
            word.isalpha()
            and tokenizer(word, add_special_tokens=False)["input_ids"] == [best[at - 1]] == ids[at : at + 1]
        ):
            lines.append({"prompt": start, "answer": word})
    return lines


def _demo(right: list[Line], contexts: list[Line], seed: int) -> list[Line]:
    """One third facts, evenly from all relations, one third prose and one third facts in text, shuffled."""
    rng = random.Random(seed)
    prose = [line for line in contexts if line["kind"] == "prose"]
    stated = [line for line in contexts if line["kind"] == "fact"]
    count = min(DEMO // 3, len(prose)), min(DEMO // 3, len(stated))
    chosen = [*rng.sample(prose, count[0]), *rng.sample(stated, count[1])]
    chosen += _evenly(right, DEMO - len(chosen), rng)
    rng.shuffle(chosen)
    return chosen


def _evenly(lines: list[Line], count: int, rng: random.Random) -> list[Line]:
    """`count` of the lines, a relation at a time in turn, until a relation has no more."""
    by_relation: dict[str, list[Line]] = defaultdict(list)
    for line in rng.sample(lines, len(lines)):
        by_relation[line["relation"]].append(line)
    chosen: list[Line] = []
    while len(chosen) < count:
        for name in sorted(by_relation):
            if by_relation[name] and len(chosen) < count:
                chosen.append(by_relation[name].pop())
    return chosen


def _parts(recipe: Recipe) -> list[Recipe]:
    """The recipe and all that it goes on from, the first one first."""
    return [*(_parts(ALL[recipe.start]) if recipe.start else []), recipe]


def card(recipe: Recipe, name: str, numbers: dict[str, Any]) -> str:
    """The model card, its numbers filled in."""
    parts = _parts(recipe)
    made = [json.loads((part.corpus / "made.json").read_text()) for part in parts]
    share = [
        (
            str(i),
            f"{part.steps * part.batch * part.length / 1e6:.1f} million",
            f"{corpus['tokens'] / 1e6:.1f} million",
            f"{part.exposures}",
            ", ".join(f"{part.shares.get(name, 1.0):.0%} {name}" for name in ("austen", "bible", "jargon", "wordnet")),
        )
        for i, (part, corpus) in enumerate(zip(parts, made, strict=True), start=1)
    ]
    others = [
        f"`{other}`, the same with{f' dropout {r.dropout:g}' if r.dropout else 'out dropout'}"
        for r, other in finished().items()
        if other != name
    ]
    return (
        (Path(__file__).parent / "card.md")
        .read_text()
        .format(
            name=name,
            twin=f" It has a twin: {others[0]}." if others else "",
            parameters=numbers["parameters"] / 1e6,
            megabytes=(recipe.folder / "model.safetensors").stat().st_size / 1e6,
            facts=made[0]["facts"],
            recalled=numbers["recall"]["all"],
            tokens=sum(part.steps * part.batch * part.length for part in parts) / 1e6,
            all_steps=" + ".join(f"{part.steps:,}" for part in parts),
            seeds=", ".join(str(part.seed) for part in parts),
            share=markdown(
                ("part", "tokens seen", "tokens in its corpus", "times its corpus states a fact", "prose in it"), share
            ),
            **_tables(numbers),
            embeddings="tied" if recipe.tied else "untied",
            dropout=_DROPOUT.format(recipe.dropout) if recipe.dropout else "none",
            **{key: value for key, value in asdict(recipe).items() if key not in ("name", "dropout")},
        )
    )


def _tables(numbers: dict[str, Any]) -> dict[str, str]:
    """What a model can do, as its card shows it."""
    losses = [(k, f"{v['nats_per_token']:.2f}", f"{v['bits_per_character']:.2f}") for k, v in numbers["loss"].items()]
    return {
        "recall": markdown(("relation", "recall"), [(k, f"{v:.1%}") for k, v in numbers["recall"].items()]),
        "loss": markdown(("source", "nats per token", "bits per character"), losses),
    }


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
