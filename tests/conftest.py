"""Shared by all tests; its being here puts this folder, with `synthetic` and `tiny`, on the import path."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# The models are tiny: threads would spend their time waiting for each other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is faster is measured, and may be another library in each process: numbers that are compared to the bit need one.
os.environ.setdefault("HYDRASCOPE_KERNELS", "onednn+gelu")
# No test may reach a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ["browsing", "command"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that no worker is left with it alone at the end."""
    items.sort(key=lambda item: "test_tutorials" not in item.nodeid)


@pytest.fixture(autouse=True)
def _rounding_is_looked_at_where_it_is_tested(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring a run twice takes longer than most runs of tests."""
    if request.module.__name__ != "test_precision":
        monkeypatch.setattr("hydrascope.runs.precision", lambda plan, clean: {})
