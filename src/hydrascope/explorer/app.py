"""The local server: the page, and answers to its questions while they are computed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import xarray as xr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from hydrascope.explorer.handlers import make_handlers
from hydrascope.explorer.job_queue import BusyError, Jobs, Task
from hydrascope.explorer.page_state import empty_page, live_config
from hydrascope.explorer.request_guard import Guard
from hydrascope.explorer.session import Session
from hydrascope.measures import Bootstrap
from hydrascope.reports.html import render
from hydrascope.reports.pages import page_parts
from hydrascope.utils.errors import HydrascopeError

#: Bytes of a request, and seconds in which it must have come.
MOST_BYTES, SECONDS = 200_000, 10.0


def application(
    session: Session, jobs: Jobs, *, port: int, token: str, folder: Path, results: xr.Dataset | None = None
) -> ASGIApp:
    """Return the application that answers on `port` at addresses that begin with `/token/`.

    Args:
        jobs: the queue of questions.
        folder: the folder of saved results and reports.
        results: shown until a prompt is asked about; nothing by default.

    Raises:
        HydrascopeError: the results are none that a page can show.
    """
    page, chunks, first = page_parts(results, Bootstrap()) if results is not None else (empty_page(session), {}, "")
    document = render.one_file({**page, "live": live_config(session, folder, results)}, chunks, first, server=True)
    policy = f"{render.policy_of(first, server=True)}; frame-ancestors 'none'"

    async def home(request: Request) -> Response:
        return HTMLResponse(document, headers={"Content-Security-Policy": policy})

    kinds = make_handlers(session, folder).items()
    answering = [Route(f"/{kind}", _answering(jobs, work), methods=["POST"]) for kind, work in kinds]
    routes = [Mount(f"/{token}", routes=[Route("/", home, methods=["GET"]), *answering])]
    return Guard(Starlette(routes=routes), port, token)


def _answering(jobs: Jobs, work: Callable[[Mapping[str, Any]], Task]) -> Callable[[Request], Any]:
    """Return the route that answers in lines of JSON: progress, and last `answer` or `error`."""

    async def answer(request: Request) -> Response:
        try:
            asked = await _read(request)
            return StreamingResponse(_told(jobs, work(asked)), media_type="application/x-ndjson")
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503)
        except HydrascopeError as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


def _told(jobs: Jobs, work: Task) -> AsyncIterator[str]:
    """Yield the messages of a job as they come; a client that disconnects stops the job.

    Raises:
        BusyError: too many wait.
    """
    loop = asyncio.get_running_loop()
    updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def tell(update: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the server has ended, and nobody listens
            loop.call_soon_threadsafe(updates.put_nowait, update)

    monitor = jobs.put(work, tell)

    async def lines() -> AsyncIterator[str]:
        try:
            update: dict[str, Any] = {}
            while not update.keys() & {"answer", "error"}:
                update = await updates.get()
                yield render.as_json(update) + "\n"
        finally:
            monitor.stop()

    return lines()


async def _read(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request holds.

    Raises:
        HydrascopeError: it holds none, is too large, or doesn't come.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise HydrascopeError("this is no JSON: send application/json")
    body = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise HydrascopeError(f"this question is larger than {MOST_BYTES:,} bytes: ask for less")
        asked = json.loads(body)
    except TimeoutError:
        raise HydrascopeError(f"this question didn't come within {SECONDS:.0f} seconds: ask again") from None
    except (ValueError, RecursionError):
        raise HydrascopeError("this is no JSON that can be read") from None
    if not isinstance(asked, dict):
        raise HydrascopeError("this is no question: send an object")
    return asked
