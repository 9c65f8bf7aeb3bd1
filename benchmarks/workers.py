"""What more processes give: `python -m benchmarks.workers`.

One process with one thread measures prompts into a result; then two with one thread each, joined, measure the same into
one; then two under Ray. Times are from when the first has its model until the last has ended. What one process does for
each block is timed besides, and how the time falls with more workers is simulated from that.
"""

import heapq
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

import hydrascope as hs
from benchmarks.shapes import GPT2_SMALL
from benchmarks.task import PATCHES, natural_lengths
from hydrascope.runs import start
from hydrascope.storage.coordination import join_workers
from hydrascope.storage.writer import Writer

PROMPTS, BATCH, ROUNDS = 96, 4, 3
BLOCK = 4 * BATCH
SIMULATED = (1, 2, 4, 8, 16, 32, 64)
#: Prompts of the run that is simulated: the paper's.
OF_THE_PAPER = 1209
#: What is timed, each with the class or module that it is called from. The functions are named here, so that the module
#: can't be imported once one of them has another name.
COUNT, WRITE = (Writer, Writer.update_measured), (Writer, Writer.write)
CLEAN = (start, start.compute_clean_activations_with_workers)


@dataclass(frozen=True)
class Times:
    """Seconds of what one process does.

    Attributes:
        clean: running a block's prompts clean, and leaving what they leave to all.
        before: what the first does then, before any are measured: its rounding estimated, the result created.
        block: measuring one, and writing it.
        counting: of that, what only one worker does at a time.
        claim: looking at a block, and taking it if it is free.
    """

    clean: float
    before: float
    block: float
    counting: float
    claim: float


def measured(out: str, folder: str, ready: Callable[[], object]) -> None:
    """The whole of a process; when it began and ended, and its `Times`, go to a file of `folder`."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    vocabulary = GPT2_SMALL.config.vocab_size
    lengths = natural_lengths(PROMPTS)
    prompts = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]
    model = hs.models.LanguageModel(GPT2_SMALL.build())
    counting, ended, clean = _timed(*COUNT), _timed(*WRITE), _timed(*CLEAN)
    ready()
    begin = time.monotonic()
    hs.sweep(model, prompts, hs.Resample(PATCHES), out=out, join=True, batch_size=BATCH)
    end = time.monotonic()
    blocks = [later - earlier for (_, earlier), (_, later) in pairwise(ended)]
    block = statistics.median(blocks) if blocks else 0.0
    first, counts = clean[0][0], statistics.median(taken for taken, _ in counting)
    before = ended[0][1] - begin - block - first
    times = Times(first * BLOCK / PROMPTS, before, block, counts, _claim())
    (Path(folder) / f"{os.getpid()}.json").write_text(json.dumps([begin, end, *astuple(times)]))


def _claim() -> float:
    with tempfile.TemporaryDirectory() as folder, join_workers(Path(folder) / "r.zarr") as here:
        begin = time.monotonic()
        for block in range(1000):
            with here.claim(str(block)):
                pass
        return (time.monotonic() - begin) / 1000


def _timed(of: Any, function: Callable[..., Any]) -> list[tuple[float, float]]:
    """How long each call of a function of a module or class takes, from now on, and when it ended."""
    found = list[tuple[float, float]]()

    def timing(*given: Any) -> Any:
        begin = time.monotonic()
        result = function(*given)
        end = time.monotonic()
        found.append((end - begin, end))
        return result

    setattr(of, function.__name__, timing)
    return found


def _told(folder: str) -> tuple[float, Times]:
    """Seconds until the last has ended, and the parts of one of them."""
    told = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    return max(end for _, end, *_ in told) - min(begin for begin, *_ in told), Times(*told[0][2:])


def together(processes: int) -> tuple[float, Times]:
    """So many processes that start at once."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    with tempfile.TemporaryDirectory() as folder:
        each = [context.Process(target=_process, args=(f"{folder}/r.zarr", folder, ready)) for _ in range(processes)]
        for process in each:
            process.start()
        for process in each:
            process.join()
        return _told(folder)


def _process(out: str, folder: str, ready: Barrier) -> None:
    measured(out, folder, ready.wait)


def under_ray() -> tuple[float, float]:
    """Two under Ray: as `together`, and the seconds that it takes besides, with starting and ending Ray."""
    from hydrascope.runs.ray_backend import measure_with_ray

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "r.zarr"
        begin = time.monotonic()
        how: dict[str, Any] = {"address": "local", "workers": 2, "device": "cpu", "say": print}
        measure_with_ray(_rays, (str(out), folder), out, PROMPTS, **how)
        seconds, _ = _told(folder)
        return seconds, time.monotonic() - begin - seconds


def _rays(out: str, folder: str) -> None:
    measured(out, folder, lambda: None)


def simulated(times: Times, workers: int) -> float:
    """Seconds that so many workers take for the paper's prompts, all there from the start.

    Each takes as long for a block as one alone does. All blocks are run clean before any is measured, and while the
    first creates the result the others wait; whoever takes a block looks first at all that were taken; counting is one
    worker's at a time. Reading what all have left, and slower disks or memory where many use them, aren't in it.
    """
    blocks = -(-OF_THE_PAPER // BLOCK)
    free = [times.clean * -(-blocks // workers) + times.before] * workers
    counted = 0.0
    for before in range(blocks):
        now = heapq.heappop(free) + times.claim * (before + 1) + times.block - times.counting
        counted = max(counted, now) + times.counting
        heapq.heappush(free, counted)
    return counted


def main() -> None:
    """Print seconds and ratios."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_paths())}
    ratios, of_ray, parts = [], [], []
    for _ in range(ROUNDS):
        (one, times), (two, _), (ray, besides) = together(1), together(2), under_ray()
        parts.append(astuple(times))
        ratios.append(one / two)
        of_ray.append(ray / two)
        print(f"one {one:.1f} s, two {two:.1f} s, two under Ray {ray:.1f} s and {besides:.1f} s besides", flush=True)
    print(f"two take {statistics.median(ratios):.2f} times less than one; under Ray {statistics.median(of_ray):.2f}")
    times = Times(*map(statistics.median, zip(*parts, strict=True)))
    print(times)
    for workers in SIMULATED:
        seconds = simulated(times, workers)
        print(f"{workers:3} workers: {seconds:7.1f} s, {simulated(times, 1) / seconds:5.1f} times one (simulated)")


def _paths() -> list[str]:
    """Where Ray's workers find this."""
    here = [str(Path(__file__).parents[1])]
    with suppress(KeyError):
        here.append(os.environ["PYTHONPATH"])
    return here


if __name__ == "__main__":
    main()
