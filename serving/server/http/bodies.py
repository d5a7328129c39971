"""Bodies of HTTP: held and inflated within limits, compressed where it is worth it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serving.server.errors import (
    InvalidRequestError,
    ServerError,
    TooLargeError,
    UnavailableError,
    UnsupportedEncodingError,
)
from serving.server.http.messages import Response

IDENTITY = "identity"
ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content encodings by the window bits that zlib knows them by."""
STEP = 1024 * 1024
"""Bytes inflated at once: the event loop has other requests to see to."""
WORTH_COMPRESSING = 32 * 1024
"""Bytes of a response from which on the network is likely to cost more than compressing does."""
HELD = 16
"""Bodies of the largest size that are held at once, all requests together."""


@dataclass(slots=True)
class Bodies:
    """The limit of one body, as it comes and inflated, and the memory for those that are held at once."""

    limit: int
    _held: int = field(default=0, init=False)

    def refusal(self, encoding: str, declared: bytes) -> ServerError | None:
        """Why a body is refused by its head: its Content-Encoding, or its Content-Length as `declared`."""
        if encoding != IDENTITY and encoding not in ENCODINGS:
            return UnsupportedEncodingError(
                f"expected a plain body or one of gzip or deflate, got Content-Encoding {encoding[:40]!r}"
            )
        if declared.isdigit() and int(declared) > self.limit:
            return TooLargeError(
                f"expected a body of at most {self.limit} bytes, got one of {declared.decode()}"
            )
        return None

    def hold(self, size: int) -> None:
        """Take memory until it is `release`d, also where it is refused.

        Raises `UnavailableError` where the bodies of other requests fill the memory meant for them.
        """
        self._held += size
        if self._held > HELD * self.limit:
            raise UnavailableError(f"the bodies being read fill {HELD * self.limit} bytes already; try again")

    def release(self, size: int) -> None:
        """Give memory back."""
        self._held -= size

    async def inflate(self, body: bytes, encoding: str, hold: Callable[[int], None]) -> bytes:
        """A body as it was before it was compressed, for each part of which memory is taken by `hold`.

        Raises `TooLargeError` or `InvalidRequestError`, and what `hold` raises.
        """
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
                hold(len(chunk))
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


async def compress(response: Response, accepted: str) -> Response:
    """A response with its body in an encoding of those that the request's Accept-Encoding has, if we know one."""
    encoding = _accepted(accepted)
    if not encoding:
        return response
    packed = await asyncio.to_thread(_pack, response.body, ENCODINGS[encoding])
    headers = [*response.headers, (b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    return replace(response, body=packed, headers=headers)


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
