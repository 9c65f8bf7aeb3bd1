"""The whole recipe, from packages to the page: `python -m training [STEP...]`, by default every step in order.

Each step skips what is already made, so an interrupted recipe goes on where it stopped.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch

from training import page, ship
from training.build import build
from training.recipe import (
    DENSE,
    DENSE_FIRST,
    DEPTH,
    FIRST,
    MODEL,
    SECOND,
    SHORT,
    TWIN,
    TWIN_FIRST,
    TWIN_SECOND,
    Recipe,
)


def _train(recipes: Sequence[Recipe]) -> None:
    """Train side by side on a CPU, where two processes of one thread do more than one of two; else in turn."""
    todo = [recipe for recipe in recipes if not recipe.finished]
    for recipe in todo:
        build(recipe)
    if torch.cuda.is_available():
        for recipe in todo:
            subprocess.run([sys.executable, "-m", "training.train", recipe.name], check=True)
        return
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    for start in range(0, len(todo), 2):
        runs = [
            subprocess.Popen([sys.executable, "-m", "training.train", recipe.name], env=threads)
            for recipe in todo[start : start + 2]
        ]
        failed = [run.args for run in runs if run.wait()]
        if failed:
            raise SystemExit(f"training failed: {failed}")


def variants() -> None:
    """Train what the model is compared with."""
    _train((*SHORT, DENSE_FIRST))
    _train((DENSE,))


def models() -> None:
    """Train the model and its twin, part by part."""
    _train((FIRST, TWIN_FIRST))
    _train((SECOND, TWIN_SECOND))
    _train((MODEL, TWIN))


def depth() -> None:
    """Train the shipped model on while its sublayers fail, and ship that, too."""
    _train((DEPTH,))
    ship.ship_depth()


STEPS: dict[str, Callable[[], None]] = {
    "variants": variants,
    "models": models,
    "ship": ship.ship,
    "depth": depth,
    "measure": page.measure_all,
    "page": page.draw,
}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(STEPS)
    if unknown := set(wanted) - set(STEPS):
        raise SystemExit(f"no step is called {min(unknown)!r}: give some of {', '.join(STEPS)}")
    for step in wanted:
        STEPS[step]()
