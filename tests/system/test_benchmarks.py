"""The benchmarks, which no other test runs, find what they import and time in hydrascope."""

import importlib
import pkgutil

import pytest

import benchmarks

MODULES = [each.name for each in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_benchmark_is_imported(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith(("hydrascope", "benchmarks")):
            raise
        pytest.skip(f"needs benchmarks/requirements.txt: {missing.name}")
