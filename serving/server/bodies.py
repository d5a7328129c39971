"""Bodies of HTTP: read and inflated within limits, compressed where it is worth it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.server.errors import (
    InvalidRequestError,
    TooLargeError,
    UnavailableError,
    UnsupportedEncodingError,
)

ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content encodings by the window bits that zlib knows them by."""
STEP = 1024 * 1024
"""Bytes inflated at once: the event loop has other requests to see to."""
WORTH_COMPRESSING = 32 * 1024
"""Bytes of a response from which on the network is likely to cost more than compressing does."""
HELD = 16
"""Bodies of the largest size that are held at once, all requests together."""

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class DisconnectedError(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


@dataclass
class Bodies:
    """Reads bodies of at most `limit` bytes, as they come and inflated; those read are held until `release`d."""

    limit: int
    _held: int = field(default=0, init=False)

    async def read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """A request's whole body, decompressed.

        Raises `TooLargeError`, `UnsupportedEncodingError`, `InvalidRequestError`, `DisconnectedError`, and
        `UnavailableError` where the bodies of other requests fill the memory meant for them.
        """
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity" and encoding not in ENCODINGS:
            raise UnsupportedEncodingError(
                f"expected a plain body or one of gzip or deflate, got Content-Encoding {encoding[:40]!r}"
            )
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.limit:
            raise TooLargeError(f"expected a body of at most {self.limit} bytes, got one of {declared}")
        held = 0
        chunks: list[bytes] = []
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DisconnectedError
                chunk = message.get("body", b"")
                held += len(chunk)
                self._hold(len(chunk))
                if held > self.limit:
                    raise TooLargeError(f"expected a body of at most {self.limit} bytes, got more")
                chunks.append(chunk)
                if not message.get("more_body"):
                    break
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if encoding != "identity":
                body = await self._inflate(body, encoding)
            self._held += len(body)
            return body
        finally:
            self._held -= held

    def release(self, body: bytes) -> None:
        """Let go of a body that was read: its request is answered."""
        self._held -= len(body)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > HELD * self.limit:
            raise UnavailableError(f"the bodies being read fill {HELD * self.limit} bytes already; try again")

    async def _inflate(self, body: bytes, encoding: str) -> bytes:
        bits = ENCODINGS[encoding]
        if encoding == "deflate" and not _has_zlib_header(body):
            bits = -15  # Some clients have always sent it raw.
        inflating = zlib.decompressobj(bits)
        chunks: list[bytes] = []
        size, rest = 0, body
        try:
            while True:
                chunk = inflating.decompress(rest, STEP)
                size += len(chunk)
                if size > self.limit:
                    raise TooLargeError(
                        f"expected a body of at most {self.limit} bytes decompressed, got more"
                    )
                chunks.append(chunk)
                rest = inflating.unconsumed_tail
                if inflating.eof or not (rest or len(chunk) == STEP):
                    break
                await asyncio.sleep(0)
        except zlib.error as error:
            raise InvalidRequestError(
                f"expected a body in {encoding}, got one that is not: {error}"
            ) from None
        if not inflating.eof or inflating.unused_data:
            what = "more follows its end" if inflating.eof else "it is cut short"
            raise InvalidRequestError(f"expected a body that is one {encoding} stream, but {what}")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


async def compress(body: bytes, accepted: str | None) -> tuple[bytes, bytes]:
    """A response's body and its content encoding, empty where the body stays as it is.

    `accepted` is the request's Accept-Encoding.
    """
    if accepted is None or len(body) < WORTH_COMPRESSING:
        return body, b""
    encoding = _accepted(accepted)
    if not encoding:
        return body, b""
    packed = await asyncio.to_thread(_pack, body, ENCODINGS[encoding])
    return packed, encoding.encode()


def _pack(body: bytes, bits: int) -> bytes:
    packing = zlib.compressobj(1, zlib.DEFLATED, bits)
    return packing.compress(body) + packing.flush()


def _accepted(header: str) -> str:
    for encoding in ("gzip", "deflate"):
        for item in header.lower().split(","):
            name, _, parameter = item.partition(";")
            refused = parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000")
            if name.strip() == encoding and not refused:
                return encoding
    return ""
