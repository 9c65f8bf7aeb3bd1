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

from benchmarks import machine, memory, phases, precision, products, race, report
from benchmarks.shapes import GPT2_SMALL, LLAMA_1024, TINY_GPT2, TINY_LLAMA
from benchmarks.task import natural_lengths
from benchmarks.tools import CACHED, HOOKS, LAST, USUAL, USUAL_LAST
from benchmarks.worker import THREADS

EVERYONE = (*USUAL, *USUAL_LAST, CACHED)


def parts(quick: bool, rounds: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Everything there is to measure, by name; `quick`: on tiny models, to see that all of it works."""
    gpt2, llama = (TINY_GPT2, TINY_LLAMA) if quick else (GPT2_SMALL, LLAMA_1024)
    natural = natural_lengths(32 if quick else 64)
    races = (
        race.Race("natural", gpt2, natural, EVERYONE, rounds),
        race.Race("llama", llama, natural_lengths(24 if quick else 32), EVERYONE, rounds),
        race.Race("long", gpt2, (100,) * 16, (HOOKS, HOOKS + LAST, CACHED), 1),
        race.Race("long-others", gpt2, (100,) * 16, (*USUAL[1:], *USUAL_LAST[1:]), 1),
    )

    def occurring() -> dict[str, Any]:
        rate = machine.Rate()
        rate.measure()
        model = gpt2.build()
        layers = sorted({0, 1, gpt2.layers // 2, gpt2.layers - 1})
        rates = products.occurring_rates(model, gpt2, 16, layers)
        rate.measure()
        return {"large": rate.measured, "rates": rates}

    def peak() -> dict[str, Any]:
        found = memory.of_sweep(gpt2, natural)
        return {**asdict(found), "beside_weights": found.beside_weights}

    return {
        **{f"race-{each.name}": partial(compete, each) for each in races},
        "products": occurring,
        "phases": lambda: asdict(phases.of_sweep(gpt2, natural)),
        "precision": lambda: asdict(precision.compare(gpt2, natural[: len(natural) // 2], rounds, say)),
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
    names = list(parts(quick=True, rounds=1))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"what to measure, by default all: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that everything works, no figures")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool is timed (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the records")
    parser.add_argument("--page", type=Path, help="also write the tables of all records into this Markdown page")
    options = parser.parse_args()
    if unknown := set(options.part) - set(names):
        parser.error(f"unknown part {sorted(unknown)[0]!r}: choose among {', '.join(names)}")
    torch.set_num_threads(THREADS)
    out = options.out / "quick" if options.quick else options.out
    out.mkdir(parents=True, exist_ok=True)
    measure = {"machine": machine.description, **parts(options.quick, options.rounds)}
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
