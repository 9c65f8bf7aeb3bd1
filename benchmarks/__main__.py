"""`python -m benchmarks`: measure, print, and keep what was measured. See docs/benchmarks.md."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, memory, phases, precision, products, race, repairers, report, variations
from benchmarks.shapes import GPT2_SMALL, LLAMA_1024, SMOLLM2, TINY_GPT2, TINY_LLAMA
from benchmarks.task import Work, natural_lengths
from benchmarks.tools import CACHED, HOOKS, LAST, USUAL, USUAL_LAST
from benchmarks.worker import THREADS

EVERYONE = (*USUAL, *USUAL_LAST, CACHED)
LAYERS, HEADS, EVERYWHERE = Work(), Work("heads"), Work("layers", "all")


def parts(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Everything there is to measure, by name; `quick`: on tiny models, to see that all of it works."""
    gpt2, llama = (TINY_GPT2, TINY_LLAMA) if quick else (GPT2_SMALL, LLAMA_1024)
    natural = natural_lengths(32 if quick else 64)
    few = natural_lengths(16)
    some, more = natural_lengths(16 if quick else 24), natural_lengths(32 if quick else 48)
    rounds = 1 if quick else 3
    # How many prompts and rounds in bfloat16, which takes minutes on a processor that has no instructions for it.
    narrow = (32, rounds) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (4, 1)
    races = (
        race.Race("layers", gpt2, natural, EVERYONE, rounds, LAYERS, one_in=3),
        race.Race("heads", gpt2, few, EVERYONE, rounds, HEADS, one_in=12),
        race.Race("everywhere", gpt2, (10,) * 16, (*USUAL, *USUAL_LAST), min(rounds, 2), EVERYWHERE, one_in=3),
        race.Race("llama", llama, natural_lengths(32), EVERYONE, min(rounds, 2), LAYERS, one_in=3),
        race.Race(
            "smollm2", llama if quick else SMOLLM2, natural_lengths(32), EVERYONE, min(rounds, 2), LAYERS, one_in=6
        ),
        race.Race("long", gpt2, (100,) * 48, (HOOKS, HOOKS + LAST, CACHED), min(rounds, 2), LAYERS, one_in=3),
    )

    def occurring() -> dict[str, Any]:
        rate = machine.Rate()
        rate.measure()
        model = gpt2.build()
        blocks = sorted({0, 1, gpt2.layers // 2, gpt2.layers - 1})
        rates = products.occurring_rates(model, gpt2, 16, blocks)
        rate.measure()
        return {"large": rate.measured, "rates": rates}

    def spent() -> dict[str, Any]:
        asked = {"layers": (natural[:32], LAYERS), "heads": (few, HEADS), "everywhere": ((10,) * 16, EVERYWHERE)}
        return {name: asdict(phases.of_sweep(gpt2, lengths, work)) for name, (lengths, work) in asked.items()}

    def peak() -> dict[str, Any]:
        asked = {"layers": (natural, LAYERS), "heads": (some, HEADS), "heads again": (more, HEADS)}
        found = {name: memory.of_run(gpt2, lengths, work) for name, (lengths, work) in asked.items()}
        return {name: {**asdict(each), "beside_weights": each.beside_weights} for name, each in found.items()}

    return {
        **{f"race-{each.name}": partial(compete, each) for each in races},
        "metrics": lambda: asdict(variations.of_metrics(gpt2, few, rounds, say)),
        "pairs": lambda: asdict(variations.of_pairs(gpt2, natural[:32], rounds, say)),
        "mediation": lambda: asdict(repairers.of_mediation(gpt2, few, rounds, say)),
        "head-pairs": lambda: asdict(repairers.of_head_pairs(gpt2, 2)),
        "head-pairs-smollm2": lambda: asdict(repairers.of_head_pairs(llama if quick else SMOLLM2, 4)),
        "shapley": lambda: asdict(repairers.of_shapley(gpt2, 6, 64)),
        "products": occurring,
        "phases": spent,
        "precision": lambda: asdict(precision.compare(gpt2, natural[:32], *narrow, say)),
        "memory": peak,
    }


def compete(one: race.Race) -> dict[str, Any]:
    """The record of a race."""
    return race.run(one, say).record()


def say(message: str) -> None:
    """Tell how far it is."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", flush=True)


def main() -> None:
    """Parse the command line and measure what it names."""
    names = list(parts(quick=True))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"what to measure, by default all: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that everything works, no figures")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the records")
    parser.add_argument("--page", type=Path, help="also write the tables of all records into this Markdown page")
    options = parser.parse_args()
    if unknown := set(options.part) - set(names):
        parser.error(f"unknown part {sorted(unknown)[0]!r}: choose among {', '.join(names)}")
    torch.set_num_threads(THREADS)
    out = options.out / "quick" if options.quick else options.out
    out.mkdir(parents=True, exist_ok=True)
    measure = {"machine": machine.description, **parts(options.quick)}
    for name in measure if not options.part else ["machine", *options.part]:
        (out / f"{name}.json").write_text(json.dumps(measure[name](), indent=1))
    records = {
        name: json.loads((out / f"{name}.json").read_text()) for name in measure if (out / f"{name}.json").exists()
    }
    text = report.render(records)
    (out / "benchmarks.md").write_text(text)
    if options.page:
        report.insert(options.page, text)
    print(text)


if __name__ == "__main__":
    main()
