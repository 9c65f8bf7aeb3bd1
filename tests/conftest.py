"""Shared by all tests; helpers are in `support`, which is on the import path."""

import gc
import os
from typing import Any

import numpy as np
import pytest
from jaxtyping import config
from shapes import install_shape_checks

os.environ.setdefault("MPLBACKEND", "Agg")
# The models are tiny: threads would spend their time waiting for each other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is faster is measured, and may be another library in each process: numbers that are compared to the bit need one.
os.environ.setdefault("HYDRASCOPE_KERNELS", "onednn+gelu")
# No test may reach a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What tests write needn't outlive a power failure (tests/faults imitates those): waiting for disks takes minutes.
os.fsync = lambda file: None

# Before anything imports it.
install_shape_checks("hydrascope")

pytest_plugins = ["browsing", "command"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser or Ray; what takes minutes comes first, so that no worker ends with it alone."""
    for item in items:
        if {"browser", "opened"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("browser")
        if "test_ray_backend" in item.nodeid:
            item.add_marker("ray")
    items.sort(key=lambda item: "test_tutorials" not in item.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Ignore hydrascope's own notices: tests that mean one ask for it. Named here, after the shape checks."""
    config.addinivalue_line("filterwarnings", "ignore::hydrascope.utils.errors.HydrascopeWarning")


def pytest_collection_finish() -> None:
    """What is imported by now is never garbage: looking for some among it would take most of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check no shapes: for tests that give hydrascope wrong ones, which it refuses in words of its own."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


@pytest.fixture
def one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are saved once, not in three formats: for tests of which there are, and of what is said of them."""
    monkeypatch.setattr("hydrascope.reports.figures.style.FORMATS", ("png",))


@pytest.fixture
def passes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Causal models make each forward pass once, and give what it gave again: for tests whose models never change."""
    from hydrascope.causal import transformer

    run, made = transformer._run, {}

    def told(value: Any) -> Any:
        array = np.asarray(value)
        return value if isinstance(value, str) else (array.shape, array.dtype.str, array.tobytes())

    def once(model: Any, prompt: Any, values: Any, place: Any) -> Any:
        key = (id(model), told(prompt), place, *((where, told(value)) for where, value in values.items()))
        if key not in made:
            made[key] = model, run(model, prompt, values, place)
        return made[key][1].clone()

    monkeypatch.setattr(transformer, "_run", once)


@pytest.fixture(autouse=True)
def _runs_are_measured_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring again how exact a run is takes longer than most runs of tests: it is done where it is tested."""
    from hydrascope.runs.batch_check import BatchCheck, MeasuredAlone

    name = request.module.__name__.rpartition(".")[2]
    if name not in ("test_rounding", "test_planted_faults", "test_faults"):
        monkeypatch.setattr("hydrascope.runs.start.precision", lambda plan, clean: {})
    # Results of other processes, where nothing is replaced, are compared to the bit.
    checked = {"test_as_if_alone", "test_batch_check", "test_planted_faults"}
    if name not in {*checked, "test_ray_backend", "test_resume", "test_coordination", "test_faults"}:
        sound = BatchCheck(0.0, 1.0, "logit", "prompt 1")
        for module in ("sweep", "start"):
            monkeypatch.setattr(f"hydrascope.runs.{module}.measure_alone", lambda *arguments: MeasuredAlone((), (), ()))
        monkeypatch.setattr("hydrascope.runs.start.check_before", lambda *arguments: sound)
        monkeypatch.setattr("hydrascope.runs.sweep.check_after", lambda *arguments: sound)
