"""A queue of questions for one thread: a model and its engine serve one at a time."""

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from hydrascope.explorer.job_monitor import JobMonitor, SendProgress
from hydrascope.utils.errors import HydrascopeError

#: Questions that wait at most, and seconds that each may take.
MOST_WAITING, SECONDS = 8, 600.0

Task = Callable[[JobMonitor], Any]


class BusyError(HydrascopeError):
    """The queue is full."""


class Jobs:
    """A thread that computes, and its queue."""

    def __init__(self, most: int = MOST_WAITING, seconds: float = SECONDS) -> None:
        """Start the thread.

        Args:
            most: the most questions that wait.
            seconds: the time limit of each.
        """
        self._waiting: queue.Queue[tuple[Task, JobMonitor, SendProgress] | None] = queue.Queue(most)
        self._seconds = seconds
        self._current: JobMonitor | None = None
        self._thread = threading.Thread(target=self._work, name="hydrascope explore", daemon=True)
        self._thread.start()

    def put(self, work: Task, tell: SendProgress) -> JobMonitor:
        """Queue a task; the returned monitor stops it.

        Args:
            tell: takes progress and last the `answer` or, in a line, the `error`; called in the queue's thread.

        Raises:
            BusyError: too many wait.
        """

        def told(update: dict[str, Any]) -> None:
            tell(update)
            if "doing" in update:
                self._tell_waiting(update)

        monitor = JobMonitor(told, self._seconds)
        if self._current is not None:
            tell({"doing": "waiting for another question", "done": 0, "total": 0})
        try:
            self._waiting.put_nowait((work, monitor, tell))
        except queue.Full:
            raise BusyError(f"{self._waiting.maxsize} questions wait already: ask again in a moment") from None
        return monitor

    def close(self) -> None:
        """Stop the current task, drop the queue, and end the thread."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        if self._current is not None:
            self._current.stop()
        self._waiting.put(None)
        self._thread.join()

    def _tell_waiting(self, update: dict[str, Any]) -> None:
        """Tell waiting clients what the model is doing."""
        for job in list(self._waiting.queue):
            if job is not None:
                job[2]({**update, "doing": f"waiting, while the model is {update['doing']}"})

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            work, self._current, _ = job
            self._current.send_progress(_outcome(work, self._current))
            self._current = None


def _outcome(work: Task, monitor: JobMonitor) -> dict[str, Any]:
    try:
        monitor.start()
        monitor.check()
        return {"answer": work(monitor)}
    except HydrascopeError as error:
        return {"error": str(error)}
    except Exception:  # the next question can be answered all the same
        traceback.print_exc(file=sys.stderr)
        return {"error": "hydrascope failed at this: the terminal in which it runs says where"}
