"""The ASGI application: routes, limits, a deadline, and errors as JSON."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from serving.server.bodies import ClientLeftError, Receive, discard, read_body, unless_client_leaves
from serving.server.errors import DeadlineError, UnavailableError, told
from serving.server.http import Request, Response, Route, router
from serving.server.metrics import Observe, RequestRecord

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
)
LINGER_SECONDS = 2.0
"""Time for a client that is still sending a refused body to read the response."""


class App:
    """Serves routes over ASGI.

    The flag `request_timeout_seconds` limits body and response together. With `cors`, pages of other origins may read
    responses. While the server is `stopping`, responses close connections.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        observe: Observe,
        options: argparse.Namespace,
        stopping: Callable[[], bool],
    ) -> None:
        self._find = router(routes)
        self._observe = observe
        self._max_body_bytes: int = options.max_body_bytes
        self._timeout_seconds: float = options.request_timeout_seconds
        self._cors = CORS if options.cors else ()
        self._stopping = stopping

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path = scope["raw_path"].decode("latin-1")
        client = scope["client"]
        record = RequestRecord(scope["method"], path, f"{client[0]}:{client[1]}" if client else "")
        unread = False
        try:
            response, unread = await self._respond(record, scope, receive)
        except ClientLeftError:
            record.status, record.code = 499, "CANCELLED"  # As nginx logs it.
            self._observe(record)
            return
        except asyncio.CancelledError:  # By uvicorn, when the time for the stop is over.
            response = _failure(record, UnavailableError("the server has stopped"))
        record.status, record.response_bytes = response.status, len(response.body)
        self._observe(record)
        content = (b"content-type", response.content_type.encode())
        headers = [content, (b"content-length", b"%d" % len(response.body)), *response.headers, *self._cors]
        if unread or self._stopping():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": unread})
        if unread:
            # Closing a connection while its client sends resets it, and the response may be lost.
            await discard(receive, LINGER_SECONDS)
            await send({"type": "http.response.body"})

    async def _respond(
        self, record: RequestRecord, scope: MutableMapping[str, Any], receive: Receive
    ) -> tuple[Response, bool]:
        """Return the response, and True if the request's body is unread."""
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        deadline = asyncio.timeout(self._timeout_seconds)
        try:
            async with deadline:
                if self._cors and record.method == "OPTIONS":
                    return Response(b""), unread
                handler, variables = self._find(record.method, record.path)
                body = await read_body(receive, headers, self._max_body_bytes)
                unread = False
                record.request_bytes = len(body)
                request = Request(variables, headers, body, record)
                async with unless_client_leaves(receive):
                    return await handler(request), unread
        except ClientLeftError:
            raise
        except Exception as error:  # noqa: BLE001 - any error becomes a response
            if isinstance(error, TimeoutError) and deadline.expired():
                late = "the request was not complete" if unread else "no response"
                error = DeadlineError(f"{late} within {self._timeout_seconds:g} s")
                error.status = 408 if unread else 504
            return _failure(record, error), unread


def _failure(record: RequestRecord, error: Exception) -> Response:
    failure = told(error, f"{record.method} {record.path}")
    record.code = failure.code.name
    response = Response.json({"error": str(failure)}, failure.status)
    response.headers = failure.headers
    return response
