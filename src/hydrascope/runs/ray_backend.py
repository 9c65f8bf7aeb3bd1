"""Workers under Ray: as many processes, on this machine or a cluster's, as measure one result together.

Ray places them, starts one again when its process or its node dies, and brings its errors here; who measures which
block is settled between the workers (`workers.py`), through the folder that holds the result and that all of them see.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hydrascope.storage import reader
from hydrascope.utils.disk_errors import reason
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import Advance, show_progress

#: How often a worker is started again.
_TRIES = 3
#: Seconds that an address has to answer in, and between looks at how far all is.
_ANSWER, _LOOK = 5, 1


@dataclass(frozen=True)
class Share:
    """What each worker gets of a cluster.

    Attributes:
        workers: how many there are.
        processors, gpus: of each.
    """

    workers: int
    processors: int
    gpus: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], workers: int | None, device: str) -> "Share":
        """Shared out evenly: by default a worker a GPU, or as many processors as PyTorch uses here where there is none.

        Args:
            nodes: what each has, as Ray counts it: `CPU` and `GPU`.
            workers: how many are asked for.
            device: what they compute on, as `load_model` takes it.

        Raises:
            HydrascopeError: there are fewer processors, or GPUs, than workers.
        """
        processors, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
        on_gpus = gpus if device == "auto" or device.startswith("cuda") else 0
        count = workers or on_gpus or max(processors // torch.get_num_threads(), 1)
        there, of = (on_gpus, "GPUs") if on_gpus else (processors, "processors")
        if count > there:
            raise HydrascopeError(f"Ray has {there:,} {of}, and {count:,} workers are asked for: ask for no more")
        largest = max(int(node.get("CPU", 0)) for node in nodes)
        return cls(count, max(min(processors // count, largest), 1), 1 if on_gpus else 0)


def measure_with_ray(
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    out: Path,
    prompts: int,
    *,
    address: str,
    workers: int | None,
    device: str,
    say: Callable[[str], object],
) -> None:
    """Let workers under Ray call `work(*arguments)`, which measures the result at `out` together with others.

    Args:
        prompts: how many there are to measure.
        address: of a Ray cluster, `host:port` or `auto`; `local` starts one here, for as long as this takes.
        workers: how many; by default as `Share.of` says.
        device: what they compute on, as `load_model` takes it.
        say: is told how many there are, and of what.

    Raises:
        HydrascopeError: there is no Ray, or none at the address; or a mistake of the workers, where all of them end
            with one. What is measured is kept.
    """
    ray = _ray()
    with _connected(ray, address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = Share.of(nodes, workers, device)
        say(f"{share.workers:,} workers under Ray, each with {share.processors:,} processors and {share.gpus} GPUs")
        remote = ray.remote(num_cpus=share.processors, num_gpus=share.gpus, max_retries=_TRIES)(_working)
        tasks = [remote.remote(work, arguments, share.processors) for _ in range(share.workers)]
        counted = _counted(out)
        with show_progress(prompts, counted, True) as advance:
            failed = _waited_for(ray, tasks, out, counted, advance)
    # A worker that ends well ends when all is measured.
    if len(failed) == share.workers:
        raise failed[0]
    if failed:
        say(f"{len(failed):,} of {share.workers:,} workers ended early, and others measured the rest: {failed[0]}")


def _working(work: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
    """The whole of a worker."""
    torch.set_num_threads(threads)
    work(*arguments)


def _waited_for(ray: Any, tasks: list[Any], out: Path, counted: int, advance: Advance) -> list[HydrascopeError]:
    """The mistakes of workers, once all have ended."""
    failed = []
    while tasks:
        done, tasks = ray.wait(tasks, timeout=_LOOK)
        now = _counted(out)
        advance(now - counted)
        counted = now
        for task in done:
            try:
                ray.get(task)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, HydrascopeError):
                    raise error.cause from None
                failed.append(error.cause)
            except ray.exceptions.RayError as error:
                why = f"a worker under Ray died {_TRIES + 1} times ({type(error).__name__})"
                failed.append(HydrascopeError(f"{why}: look for memory that ran out, and go on with --resume"))
    return failed


def _counted(out: Path) -> int:
    """How many prompts are measured, as far as can be seen from here."""
    with suppress(HydrascopeError):
        return int(reader.read_attributes(out)["measured"])
    return 0


def _ray() -> Any:
    # Nothing is told to anyone about what is run here.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise HydrascopeError("workers under Ray need Ray: pip install 'hydrascope[ray]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    if address not in ("local", "auto"):
        _require_answer(address)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds
        raise HydrascopeError(f"no Ray at {address} ({reason(error)}): start it, or give local") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """That a Ray cluster is there: asked in a process of its own, since Ray asks for minutes and prints each try."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise HydrascopeError(f"{address} is no address of a Ray cluster: give host:port, auto, or local")
    try:
        # Whether anyone is there is known at once.
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
        ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        told = subprocess.run(ask, capture_output=True, text=True, timeout=3 * _ANSWER)
    except (OSError, OverflowError) as error:
        raise HydrascopeError(f"no Ray answers at {address} ({reason(error)}): start it, or give local") from error
    except subprocess.TimeoutExpired:
        raise HydrascopeError(f"no Ray answers at {address}, though something does: look at the port") from None
    if told.returncode:
        why = (told.stderr.strip().splitlines() or ["it is not well"])[-1].split(". ")[0]
        raise HydrascopeError(f"what is at {address} is no Ray that takes work from here ({why}): look at it first")
