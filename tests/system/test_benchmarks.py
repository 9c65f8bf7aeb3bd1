"""The benchmarks find what they import, and the tools that need nothing more find the same numbers."""

import importlib
import pkgutil
from typing import Any

import pytest

import benchmarks
from benchmarks import tools
from benchmarks.shapes import TINY_LLAMA
from benchmarks.task import Work, draw_task

MODULES = [each.name for each in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_benchmark_is_imported(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith(("hydrascope", "benchmarks")):
            raise
        pytest.skip(f"needs benchmarks/requirements.txt: {missing.name}")


@pytest.mark.parametrize("peer", [tools.WHOLE, tools.HOOKS, tools.HOOKS + tools.LAST, tools.CACHED])
@pytest.mark.parametrize("kind", ["layers", "heads"])
def test_tools_find_the_same(kind: Any, peer: str) -> None:
    model, work = TINY_LLAMA.build(), Work(kind)
    prompts = draw_task(model, TINY_LLAMA, tuple(range(3, 20)), work)
    engine = tools.prepare(tools.ENGINE, model, TINY_LLAMA, work)
    every = range(len(work.ablated(TINY_LLAMA)))
    given = tools.prepare(peer, model, TINY_LLAMA, work)(prompts, ablated=every)
    for mine, theirs in zip(engine(prompts, ablated=every), given, strict=True):
        assert mine.difference(theirs) <= 1e-5 * float(mine.row_logit.abs().max())
