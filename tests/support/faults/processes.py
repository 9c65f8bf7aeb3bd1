"""Runs of a tiny model in processes of their own, slow enough to be killed, or to meet, within and between blocks."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from stored import run_to_disk
from tiny import tiny, tiny_tokenizer

from hydrascope.ablations.ablation import Resample
from hydrascope.engines import Engine, Readings, Request, wavefront
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.storage import coordination
from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

#: Prompts of many lengths, in no order.
TEXTS = [("lorem ipsum dolor sit amet" * 2)[i % 13 : i % 13 + 1 + (7 * i) % 11] + chr(65 + i) for i in range(23)]

#: How they are measured, if nothing else is asked for.
OPTIONS: dict[str, Any] = {"ablation": Resample(3), "batch_size": 2}

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hydrascope.runs.sweep", "tiny", "faults.commands"])


def speaking() -> LanguageModel:
    """The model that measures them."""
    model = tiny("llama", torch.float32)
    model.tokenizer = tiny_tokenizer()
    return model


def measured_slowly(
    out: Path, options: dict[str, Any], ready: Callable[[], object], batch: Callable[[], object]
) -> None:
    """Call `run`, and `ready` when the model is made, and `batch` before each batch."""
    torch.set_num_threads(1)

    def slowly(model: LanguageModel, request: Request) -> Readings:
        time.sleep(0.01)
        batch()
        return wavefront.measure(model, request)

    plan.choose_engine = lambda model, name: Engine("wavefront", slowly, "for the test")
    coordination._PATIENCE = 0.02
    model = speaking()
    ready()
    run_to_disk(model, TEXTS, **{**OPTIONS, **options}, out=out)


def _measure(
    out: Path,
    options: dict[str, Any],
    hold: int | None,
    loaded: Event,
    released: Event,
    batches: "Synchronized[int]",
    said: "SimpleQueue[str]",
) -> None:
    """The whole of a process."""

    def batch() -> None:
        batches.value += 1
        if batches.value == hold:
            released.wait()

    try:
        measured_slowly(out, options, loaded.set, batch)
        said.put("")
    except HydrascopeError as error:
        said.put(str(error))


class Process:
    """A run in a process of its own, from when its model is made; `batches` counts what it has begun to measure.

    One that is to `hold` before a batch stands there until it is asked for its `end`.
    """

    def __init__(self, out: Path, *, hold: int | None = None, **options: Any) -> None:
        loaded, self._released, self.batches = PROCESSES.Event(), PROCESSES.Event(), PROCESSES.Value("i")
        self._said: SimpleQueue[str] = PROCESSES.SimpleQueue()
        arguments = (out, options, hold, loaded, self._released, self.batches, self._said)
        self.process: BaseProcess = PROCESSES.Process(target=_measure, args=arguments)
        self.process.start()
        assert loaded.wait(60)
        while hold and self.batches.value < hold:
            assert self.process.is_alive()
            time.sleep(0.005)

    def end(self) -> str:
        """What it said at its end; nothing where all went well."""
        self._released.set()
        self.process.join()
        assert self.process.exitcode == 0
        return self._said.get()

    def kill(self, after: float) -> bool:
        """SIGKILL; whether it still lived then."""
        self.process.join(after)
        lived = self.process.is_alive()
        self.process.kill()
        self.process.join()
        return lived


def identical(one: Path, other: Path) -> None:
    """All numbers and attributes of two results, but for how the runs were called and which engine was chosen why."""
    first, second = open_results(one), open_results(other)
    for results in (first, second):
        for name in ("command", "engine_reason"):
            results.attrs.pop(name)
    xr.testing.assert_identical(first, second)
