"""Refuse requests that don't come from the server's own page on this machine."""

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What every answer says.
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """A guard that passes requests which name this machine, the token and the server's page.

    The token is the first part of the path. A `Host` that isn't this machine's is how a page elsewhere reaches it by a
    name that it rebinds; an `Origin` that isn't the server's is how one asks from another page.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        """Guard `app`, which listens on `port`."""
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it in one line."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        app = self._app if refused is None else PlainTextResponse(refused, 403)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, with_headers)

    def _refused(self, scope: Scope) -> str | None:
        """Return the reason to refuse a request; None for none."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return "This server answers to its own address alone."
        token = scope["path"].split("/")[1:2]
        if not secrets.compare_digest("".join(token).encode(), self._token):
            return "This address is not, or no longer, the server's: open the one that it printed when it started."
        own = headers.getlist("origin") == [f"http://{hosts[0]}"]
        same = headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if scope["method"] not in ("GET", "HEAD") and not (own and same):
            return "This server answers to its own page alone."
        return None
