"""Workers under Ray that measure one result together, on this machine or on a cluster.

Ray places the workers, starts one again when its process or its node dies, and returns its errors. The workers share
out chunks among themselves (`storage/coordination.py`), through the result's folder, which all of them see.
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

#: The most times that a worker is started again.
_TRIES = 3
#: Seconds within which an address must answer, and between looks at the progress.
_ANSWER, _LOOK = 5, 1


@dataclass(frozen=True)
class Share:
    """One worker's share of a cluster.

    Attributes:
        workers: their number.
        processors, gpus: those of each worker.
    """

    workers: int
    processors: int
    gpus: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], workers: int | None, device: str) -> "Share":
        """Share a cluster out evenly: by default one worker for each GPU.

        Without a GPU each worker gets as many processors as PyTorch uses here.

        Args:
            nodes: the `CPU` and `GPU` of each node, as Ray counts them.
            workers: the number of workers that is asked for.
            device: their device, as `load_model` takes it.

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
    """Let workers under Ray call `work(*arguments)`, which measures the result at `out`.

    Args:
        prompts: the number of prompts to measure.
        address: a Ray cluster, `host:port` or `auto`; `local` starts one here for this run.
        workers: their number; by default as `Share.of` says.
        device: their device, as `load_model` takes it.
        say: takes lines about the workers.

    Raises:
        HydrascopeError: there is no Ray, or none at the address; or all workers ended with an error. Measured
            prompts are kept.
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
    """Run a worker."""
    torch.set_num_threads(threads)
    work(*arguments)


def _waited_for(ray: Any, tasks: list[Any], out: Path, counted: int, advance: Advance) -> list[HydrascopeError]:
    """Return the errors of the workers, once all have ended."""
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
    """Return the number of measured prompts, 0 where there is no result yet."""
    with suppress(HydrascopeError):
        return int(reader.read_attributes(out)["measured"])
    return 0


def _ray() -> Any:
    # Ray sends statistics of its use unless told not to.
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
    """Refuse an address at which no Ray cluster answers.

    Another process asks: Ray itself asks for minutes and prints each try.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise HydrascopeError(f"{address} is no address of a Ray cluster: give host:port, auto, or local")
    try:
        # A connection shows at once whether anything is there.
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
        ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        told = subprocess.run(ask, capture_output=True, text=True, timeout=3 * _ANSWER)
    except (OSError, OverflowError) as error:
        raise HydrascopeError(f"no Ray answers at {address} ({reason(error)}): start it, or give local") from error
    except subprocess.TimeoutExpired:
        raise HydrascopeError(f"no Ray answers at {address}, though something does: look at the port") from None
    if told.returncode:
        why = (told.stderr.strip().splitlines() or ["it is not well"])[-1].split(". ")[0]
        raise HydrascopeError(f"the Ray at {address} takes no work from here ({why}): look at it first")
