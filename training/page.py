"""The measurements behind docs/built-in-model.md, kept as data beside it, and the figures drawn from them.

Two kinds of prompts: the shipped demo set, which the model itself answers correctly, as a whole and its three kinds
apart; and prompts that no model chose, on which models, variants and checkpoints are compared: the first of
`passages` (held-out prose cut before random words) and a sample of `facts` (in left-out wordings). The recipe was found
with these in view; `passages-rest` are those that it was not, so they confirm or don't.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydrascope.loading.load import load_model
from hydrascope.reports.figures.style import save
from training import evaluate, figures, measure, prompts, tables
from training.build import sources
from training.facts import facts
from training.lines import Line, read
from training.prose import Prose, split
from training.recipe import ALL, VARIANTS, Recipe
from training.ship import ZOO, finished

DOCS = Path(__file__).parent.parent / "docs" / "built-in-model"
DATA = DOCS / "measurements.json"

#: The kinds of prompts in the demo set: running text, facts inside it, facts alone.
KINDS = {"prose": "demo-prose", "fact": "demo-fact-in-prose", None: "demo-fact"}

#: Prompts on which all models are compared.
COMPARED = 300


def fixed_sets() -> dict[str, list[Line]]:
    """The prompts that no model chose."""
    passages = read(ZOO / "prompts" / "passages.jsonl")
    return {
        "passages": passages[:COMPARED],
        "passages-rest": passages[COMPARED:],
        "facts": random.Random(1).sample(prompts.world_facts(facts()), COMPARED),
    }


def measure_all() -> None:
    """Measure models, variants and checkpoints; what is measured already is kept."""
    data = _data()
    sets = fixed_sets()
    demo = read(ZOO / "prompts" / "demo.jsonl")
    sets["demo"] = demo
    sets |= {name: [line for line in demo if line.get("kind") == kind] for kind, name in KINDS.items()}
    _, held_out = split(sources())
    for name in finished().values():
        for key, lines in sets.items():
            _once(data, f"{name}/{key}", partial(_measured, ZOO / "models" / name, lines, key))
    for variant in VARIANTS:
        if variant.finished:
            _once(data, f"{variant.name}/quality", partial(_brief_quality, variant.folder, sets["facts"], held_out))
            _once(data, f"{variant.name}/passages", partial(_measured, variant.folder, sets["passages"], "passages"))
    for recipe, name in finished().items():
        for step, folder in _checkpoints(recipe):
            _once(data, f"{name}@{step}/quality", partial(_brief_quality, folder, sets["facts"], held_out))
            _once(data, f"{name}@{step}/passages", partial(_measured, folder, sets["passages"], "passages"))


def _checkpoints(recipe: Recipe) -> list[tuple[int, Path]]:
    """All checkpoints of a recipe, those of the recipe that it started from first, by the step from the very start."""
    before = _checkpoints(ALL[recipe.start]) if recipe.start else []
    offset = before[-1][0] if before else 0
    return before + [(offset + _step(f), f) for f in sorted((recipe.folder / "checkpoints").glob("*"), key=_step)]


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _brief_quality(folder: Path, known: list[Line], held_out: Prose) -> dict[str, Any]:
    """Recall on the fixed facts, and loss on a fifth of the held-out prose: enough for a curve."""
    model, tokenizer = evaluate.load(folder)
    texts = [" ".join(passage) for passages in held_out.values() for passage in passages[::5]]
    return {
        "recall": evaluate.recall(model, tokenizer, known)["all"],
        "loss": evaluate.loss(model, tokenizer, texts),
    }


def _data() -> dict[str, Any]:
    return json.loads(DATA.read_text()) if DATA.exists() else {}


def _once(data: dict[str, Any], key: str, make: Callable[[], dict[str, Any]]) -> None:
    if key not in data:
        data[key] = make()
        DOCS.mkdir(parents=True, exist_ok=True)
        DATA.write_text(json.dumps(data, indent=None, separators=(",", ":")) + "\n")
        print("measured", key, flush=True)


def _measured(folder: Path, lines: list[Line], name: str) -> dict[str, Any]:
    result = measure.effects(load_model(str(folder)), lines, name)
    return {
        "prompts": result.sizes["prompt"],
        "worst_imbalance": float(result.data.attrs["worst_imbalance"]),
        "curves": measure.as_data(measure.curves(result)),
        "erasure": measure.erasure_data(measure.late_erasure(result)),
    }


def draw() -> None:
    """All figures of the page, from the data alone."""
    data = _data()
    for name, figure in (
        ("effects", figures.effects_figure(data)),
        ("compensation-passages", figures.compensation_figure(data, "passages")),
        ("compensation-demo", figures.compensation_figure(data, "demo")),
        ("variants", figures.variants_figure(data)),
        ("training", figures.training_figure(data)),
    ):
        save(figure, DOCS, name)
    (DOCS / "tables.md").write_text(tables.tables(data), encoding="utf-8")
