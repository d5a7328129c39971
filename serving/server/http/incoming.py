"""One request on its way in, from its head to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context, copy_context

from serving.server.errors import ServerError, TooLargeError
from serving.server.exchange import Exchange
from serving.server.http.bodies import IDENTITY, Bodies
from serving.server.http.routes import Target


class Incoming:
    """A request whose head is read. Its body takes memory from `bodies` until it is `release`d."""

    __slots__ = (
        "_bodies",
        "_chunks",
        "_held",
        "begun",
        "context",
        "encoding",
        "expects_continue",
        "headers",
        "keep_alive",
        "refusal",
        "seen",
        "target",
        "whole",
    )

    def __init__(self, bodies: Bodies, headers: Mapping[bytes, bytes], target: Target) -> None:
        self._bodies = bodies
        self._chunks: list[bytes] = []
        self._held = 0
        self.headers = headers
        """By their lower-case names; of several with one name, the last."""
        self.target = target
        self.begun = asyncio.get_running_loop().time()
        self.context: Context = copy_context()
        """Where its handler runs."""
        self.seen: Exchange | None = None
        encoding = headers.get(b"content-encoding")
        self.encoding = IDENTITY if encoding is None else encoding.decode("latin-1").strip().lower()
        expected = headers.get(b"expect")
        self.expects_continue = expected is not None and expected.lower() == b"100-continue"
        self.keep_alive = True
        self.refusal: ServerError | None = None
        """Why it is answered without a look at its body."""
        self.whole = False
        """Whether nothing more of it is waited for."""

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    def add(self, chunk: bytes) -> None:
        """A part of the body. Raises `TooLargeError` or `UnavailableError`."""
        self._chunks.append(chunk)
        self._hold(len(chunk))
        if self._held > self._bodies.limit:
            raise TooLargeError(f"expected a body of at most {self._bodies.limit} bytes, got more")

    def refuse(self, error: ServerError) -> None:
        """Answer with an error whatever may come, and end the connection with it."""
        self.refusal = error
        self.keep_alive = False
        self.whole = True

    async def inflated(self) -> bytes:
        """The body, decompressed. Raises `TooLargeError`, `InvalidRequestError` or `UnavailableError`."""
        compressed = self._held
        body = await self._bodies.inflate(self.body(), self.encoding, self._hold)
        self._chunks.clear()
        self._held -= compressed
        self._bodies.release(compressed)
        return body

    def body(self) -> bytes:
        """The body as it came."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def _hold(self, size: int) -> None:
        self._held += size
        self._bodies.hold(size)

    def release(self) -> None:
        """Give back the memory of the body."""
        self._bodies.release(self._held)
        self._held = 0
        self._chunks.clear()
