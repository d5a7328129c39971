"""The ASGI application: bodies within limits, routes, a deadline, and errors as JSON."""

from __future__ import annotations

import argparse
import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from serving.server.errors import (
    DeadlineError,
    InvalidRequestError,
    TooLargeError,
    UnavailableError,
    quote,
    told,
)
from serving.server.http import Request, Response, Route, router
from serving.server.metrics import Observe, RequestRecord

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""ASGI's receive."""
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
)
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's name for each content encoding."""
LINGER_SECONDS = 2.0
"""Time for a client that is still sending a refused body to read the response."""


class ClientLeftError(Exception):
    """The client closed its connection before the response."""


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
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
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
                body = await _read_body(receive, headers, self._max_body_bytes)
                unread = False
                record.request_bytes = len(body)
                request = Request(variables, headers, body, record)
                async with _unless_client_leaves(receive):
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


async def _read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Read a request's body and inflate it; `limit` bytes are allowed before and after.

    Raises `TooLargeError`, `InvalidRequestError` or `ClientLeftError`.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding != "identity" and encoding not in WINDOW_BITS:
        expected = "expected a plain body or one of gzip or deflate"
        error = InvalidRequestError(f"{expected}, got Content-Encoding {quote(encoding)}")
        error.status, error.headers = 415, ((b"accept-encoding", b"gzip, deflate"),)
        raise error
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise TooLargeError(f"expected a body of at most {limit} bytes, got one of {declared.decode()}")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got more")
        chunks.append(chunk)
        if not message.get("more_body", False):
            break
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return body if encoding == "identity" else await _inflate(body, encoding, limit)


@asynccontextmanager
async def _unless_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block with `ClientLeftError` when the client leaves."""
    answering = asyncio.current_task()
    left = False

    async def watch() -> None:
        nonlocal left
        left = (await receive())["type"] == "http.disconnect"
        if left and answering is not None:
            answering.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise ClientLeftError from None
        raise
    finally:
        watching.cancel()


async def _inflate(body: bytes, encoding: str, limit: int) -> bytes:
    inflating = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        # In a thread: the event loop has other requests to serve.
        inflated = await asyncio.to_thread(inflating.decompress, body, limit + 1)
    except zlib.error as error:
        raise InvalidRequestError(f"expected a body in {encoding}, but it cannot be read: {error}") from None
    if len(inflated) > limit:
        raise TooLargeError(f"expected a body of at most {limit} bytes decompressed, got more")
    if not inflating.eof or inflating.unused_data:
        what = "more follows its end" if inflating.eof else "it is cut short"
        raise InvalidRequestError(f"expected a body of one {encoding} stream, but {what}")
    return inflated
