"""Serve the page on this machine until Ctrl-C."""

import errno
import secrets
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn
import xarray as xr

from hydrascope.explorer.app import application
from hydrascope.explorer.connection import Connection
from hydrascope.explorer.job_queue import Jobs
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError

#: So many ports are tried from the one asked for on.
_PORTS = 20


def serve(
    session: Session,
    *,
    port: int,
    folder: Path,
    results: xr.Dataset | None = None,
    browser: bool = True,
    say: Callable[[str], object],
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        port: its port; if it is taken, the next free one.
        folder: the folder of saved results and reports.
        results: the results that the page shows first.
        browser: open the page.
        say: takes the address.

    Raises:
        HydrascopeError: no port is free, or the results are none that a page can show.
    """
    listening = listen(port)
    port = listening.getsockname()[1]
    token, jobs = secrets.token_urlsafe(24), Jobs()
    try:
        app = application(session, jobs, port=port, token=token, folder=folder, results=results)
        address = f"http://127.0.0.1:{port}/{token}/"
        say(address)
        # The prompts that patches come from are run while the page opens.
        jobs.put(session.warm, lambda update: None)
        if browser:
            webbrowser.open(address)
        uvicorn.Server(configured(app)).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        jobs.close()
        listening.close()


def configured(app: object) -> uvicorn.Config:
    """Return the server's configuration: few connections, only errors in the log."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Connection,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=64,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=1,
    )


def listen(port: int) -> socket.socket:
    """Return a socket of this machine alone at `port`, or at the next free one.

    Raises:
        HydrascopeError: no port is free.
    """
    for tried in range(port, min(port + _PORTS, 65536)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", tried))
            listening.listen()
        except OSError as error:
            listening.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise HydrascopeError(f"cannot listen on this machine ({error.strerror})") from error
        else:
            return listening
    raise HydrascopeError(f"no port from {port} to {port + _PORTS - 1} is free: give another --port")
