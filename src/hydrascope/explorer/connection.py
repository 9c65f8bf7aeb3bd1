"""A connection of the explorer's server that drops clients who don't finish a request."""

from asyncio import BaseTransport, TimerHandle
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: The seconds in which a client must send a whole request.
REQUEST_SECONDS = 5.0


class Connection(H11Protocol):
    """An HTTP connection with a deadline for each request.

    Without it, a few clients with half-sent requests would take all connections that the server allows.
    """

    _deadline: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Start the deadline of the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start()

    def data_received(self, data: bytes) -> None:
        """Take data, and stop the deadline once a request is whole."""
        super().data_received(data)
        if self.conn.their_state is h11.DONE:
            self._stop()
        elif self._deadline is None:
            self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        transport: Any = self.transport
        self._deadline = self.loop.call_later(REQUEST_SECONDS, transport.abort)

    def _stop(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None
