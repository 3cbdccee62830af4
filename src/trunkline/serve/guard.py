"""What stands before the routes: the token, bytes and seconds of a request, its count; and bounds on connections."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from typing import Any

from prometheus_client import Histogram
from starlette.exceptions import HTTPException
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trunkline.errors import TrunklineError
from trunkline.serve.schema import Limits

MOST_HEAD, BUSY = 64 * 2**10, {"Retry-After": "1"}
"""Bytes of a request's head, and headers of a refusal because of too much work."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""What requests name this machine where there is no token: pages of other names that lead here are no clients."""


def answer(content: Any, status: int = 200, headers: Any = None) -> Response:
    """JSON in ASCII, which holds halves of surrogate pairs, too."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, headers, "application/json")


class Refused(TrunklineError):
    """A request that is refused with a status of HTTP."""

    def __init__(self, status: int, given: str, *, expected: str = "", todo: str = "", headers: Any = None) -> None:
        self.status, self.headers = status, headers
        super().__init__(given, expected=expected, todo=todo)


def refusal(error: TrunklineError) -> Response:
    """An error of the library as an answer; without a status of its own it is 422."""
    said = {part: getattr(error, part) for part in ("given", "expected", "todo")}
    body = {"error": {"message": str(error), **said}}
    return answer(body, getattr(error, "status", 422), getattr(error, "headers", None))


class Guard:
    """An ASGI application around another; `/health` needs no token, and `observe` is told of each request."""

    def __init__(self, app: Any, limits: Limits, token: str, observe: Histogram) -> None:
        self._app, self._limits, self._observe = app, limits, observe
        self._token, self._held = f"Bearer {token}".encode() if token else b"", 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers, began, status, size, limits = dict(scope["headers"]), time.perf_counter(), 0, 0, self._limits
        most = limits.task_bytes if scope["path"].startswith("/v1/tasks/") else limits.body_bytes
        announced = int(headers.get(b"content-length", b"0"))
        whole = not announced and b"transfer-encoding" not in headers

        async def reading() -> Any:
            nonlocal whole, size
            message = await receive()
            part = len(message.get("body", b""))
            size, self._held = size + part, self._held + part
            if size > most or self._held > limits.bytes_at_once:
                given = f"more than {most} bytes" if size > most else "too many bytes of all requests at once"
                raise HTTPException(413 if size > most else 429, given, BUSY)
            whole = whole or not message.get("more_body")
            return message

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # What is left of the body is not waited for.
                message["headers"] = [*message["headers"], *([] if whole else [(b"connection", b"close")])]
            await send(message)

        try:
            async with asyncio.timeout(limits.seconds):
                refused = self._refused(scope["path"], headers)
                if announced > most:
                    refused = Refused(413, f"a body of {announced} bytes", expected=f"at most {most}")
                await (refusal(refused) if refused else self._app)(scope, reading, sending)
        except TimeoutError:
            if status:
                raise
            given = f"{limits.seconds:g} seconds are over" + ("" if whole else ", and the body is not complete")
            await refusal(Refused(504 if whole else 408, given, todo="Send less, or later"))(scope, reading, sending)
        finally:
            self._held -= size
            route = getattr(scope.get("route"), "path", "other")
            self._observe.labels(scope["method"], route, status).observe(time.perf_counter() - began)

    def _refused(self, path: str, headers: dict[bytes, bytes]) -> Refused | None:
        if not self._token:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name, _, port = host.rpartition(":")
            if (name if port.isdigit() else host) in LOCAL:
                return None
            todo = "Start the service with a token to reach it by other names"
            return Refused(403, f"the host is {host[:100]!r}", expected="one of " + ", ".join(LOCAL), todo=todo)
        if path.startswith("/health") or hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            return None
        expected = "the header `Authorization: Bearer TOKEN`"
        return Refused(401, "no or a wrong token", expected=expected, headers={"WWW-Authenticate": "Bearer"})


class Protocol(HttpToolsProtocol):
    """Uvicorn's connection, cut where a head does not arrive or is too long, and where an answer is not read."""

    head_seconds = 10.0
    _timer: asyncio.TimerHandle | None = None
    _head = 0

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._head = None, 0

    def connection_made(self, transport: Any) -> None:
        """The first head is waited for."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """What comes between requests begins a head."""
        if self.cycle is None or self.cycle.response_complete:
            self._arm()
            self._head += len(data)
        super().data_received(data)
        if self._head > MOST_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._disarm()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The other side does not read."""
        super().pause_writing()
        self._arm()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._disarm()
