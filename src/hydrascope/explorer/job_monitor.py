"""Report a computation's progress, and let another thread cancel it before the next block."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydrascope.models.hooks import hooked
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: Seconds between two words on how far it is.
EVERY = 0.2

#: What is told of a computation, as JSON.
SendProgress = Callable[[dict[str, Any]], object]


class StoppedError(HydrascopeError):
    """The computation was told to stop, or took too long."""


class JobMonitor:
    """Report a computation's progress, and let another thread cancel it.

    Attributes:
        seconds: the time that it may take from `start` on.
    """

    def __init__(self, tell: SendProgress = lambda update: None, seconds: float = float("inf")) -> None:
        """Set the receiver of progress and the time limit."""
        self.send_progress = tell
        self.seconds = seconds
        self._stopped = threading.Event()
        self._end = float("inf")
        self._said = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._end = time.monotonic() + self.seconds

    def stop(self) -> None:
        """End the computation, from any thread."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise an error if the computation shall end.

        Raises:
            StoppedError: it was told to stop, or its time is over.
        """
        if self.stopped:
            raise StoppedError("cancelled")
        if time.monotonic() > self._end:
            raise StoppedError(f"this took more than {self.seconds:,.0f} seconds: ask for fewer patches or components")

    def progress(self, doing: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps are taken, unless a report was sent a moment ago."""
        self.check()
        if self._due:
            self._said = time.monotonic()
            self.send_progress({"doing": doing, "done": done, "total": total})

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._said >= EVERY

    @contextmanager
    def attach(self, model: LanguageModel, look: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Check before every block of `model` whether to go on, within this context.

        Args:
            look: reports the progress; called when a report is due.
        """

        def before(*_: Any) -> None:
            self.check()
            if self._due:
                look()

        with hooked(layer.register_forward_pre_hook(before) for layer in model.blocks):
            yield
