"""Bodies of HTTP requests: read and inflated within a limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from serving.server.errors import InvalidRequestError, TooLargeError, UnsupportedEncodingError, quote

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""ASGI's receive."""

WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's name for each content encoding."""


class ClientLeftError(Exception):
    """The client closed its connection before the response."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Read a request's body and inflate it; `limit` bytes are allowed before and after.

    Raises `TooLargeError`, `UnsupportedEncodingError`, `InvalidRequestError` or `ClientLeftError`.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding != "identity" and encoding not in WINDOW_BITS:
        expected = "expected a plain body or one of gzip or deflate"
        raise UnsupportedEncodingError(f"{expected}, got Content-Encoding {quote(encoding)}")
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


async def discard(receive: Receive, seconds: float) -> None:
    """Read the rest of a body, for at most `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive()).get("more_body", False):
                pass


@asynccontextmanager
async def unless_client_leaves(receive: Receive) -> AsyncIterator[None]:
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
