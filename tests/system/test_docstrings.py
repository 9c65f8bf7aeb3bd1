"""Examples in docstrings are run, with a small model and a small result at hand."""

import doctest
import importlib
import pkgutil
import warnings
from types import ModuleType
from typing import Any

import pytest

import hydrascope as hs
from hydrascope.measures import Bootstrap

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Return the names of all modules that hold an example."""
    names = ["hydrascope", *(each.name for each in pkgutil.walk_packages(hs.__path__, "hydrascope."))]
    return [name for name in names if not name.endswith("__main__") and ">>>" in source(name)]


def source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return file.read()


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Return what examples may use without defining it: the phantom, eight prompts, a result and its effects."""
    import numpy as np

    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = hs.sweep(model, prompts, hs.Zero())
    effects = hs.measures.per_prompt(results)
    return {"hs": hs, "np": np, "model": model, "prompts": prompts, "results": results, "effects": effects}


#: The modules that draw and write pages in their examples.
LONG = (
    "hydrascope.reports.kinds",
    "hydrascope.reports.pages",
    "hydrascope.reports.figures.draw",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in modules()]
)
def test_examples_give_what_they_say(
    name: str, names: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Examples show calls; intervals are tested elsewhere.
    monkeypatch.setattr(Bootstrap.__init__, "__defaults__", (100, 0.95, 0))
    module: ModuleType = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in doctest.DocTestFinder().find(module, name, globs={**vars(module), **names}):
        if test.examples:
            runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out
