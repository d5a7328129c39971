"""What gRPC adds to HTTP/2: messages with a length before them, timeouts, and an end with a status.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
import zlib
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError, Message

from serving.server.errors import InvalidRequestError, StatusCode, TooLargeError, UnimplementedError
from serving.server.grpc.service import Method

Header = tuple[bytes, bytes]
Framed = tuple[bool, bytes]
"""A message as it came, and whether it is compressed."""

PREFIX = struct.Struct(">BI")
ENCODINGS = {"gzip": 31, "deflate": 15}
"""How messages may be compressed, and what zlib calls it."""
ACCEPTED = b"identity, deflate, gzip"
HEAD: tuple[Header, ...] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ACCEPTED),
)
SUCCEEDED: tuple[Header, ...] = ((b"grpc-status", b"0"),)
MAX_DETAILS = 6000
"""Bytes of an error's message: it travels in a header, percent-encoded, and clients begin to refuse at 8 KiB."""
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What stays as it is in a message of a status."""


class Messages:
    """Takes the bytes of a stream apart."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of a message."""
        self._limit = limit
        self._rest = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Framed]:
        """The messages that are whole with these bytes. Raises `TooLargeError`."""
        if not self._rest and len(data) >= PREFIX.size:
            compressed, size = PREFIX.unpack_from(data)
            if size == len(data) - PREFIX.size <= self._limit:
                return [(bool(compressed), data[PREFIX.size :])]  # As most come: one, whole.
        rest = self._rest
        rest += data
        whole: list[Framed] = []
        while len(rest) >= PREFIX.size:
            compressed, size = PREFIX.unpack_from(rest)
            if size > self._limit:
                raise TooLargeError(f"received message larger than max ({size} vs. {self._limit} bytes)")
            end = PREFIX.size + size
            if len(rest) < end:
                break
            whole.append((bool(compressed), bytes(rest[PREFIX.size : end])))
            del rest[:end]
        return whole


def frame(message: bytes) -> bytes:
    """A message as it travels, not compressed."""
    return PREFIX.pack(0, len(message)) + message


def inflate(message: bytes, encoding: str, limit: int) -> bytes:
    """A compressed message; in any thread. Raises `InvalidRequestError`, `TooLargeError`, `UnimplementedError`."""
    if encoding not in ENCODINGS:
        raise UnimplementedError(f"expected messages in {ACCEPTED.decode()}, got {encoding[:80]!r}")
    inflating = zlib.decompressobj(ENCODINGS[encoding])
    try:
        plain = inflating.decompress(message, limit + 1)
    except zlib.error as error:
        raise InvalidRequestError(f"expected a message in {encoding}: {error}") from None
    if len(plain) > limit:
        raise TooLargeError(f"received message larger than max ({limit} bytes) when decompressed")
    if not inflating.eof or inflating.unused_data:
        raise InvalidRequestError(f"expected a message that is one {encoding} stream, no more and no less")
    return plain


def timeout_seconds(text: str) -> float:
    """What a `grpc-timeout` says. Raises `InvalidRequestError`."""
    digits, unit = text[:-1], text[-1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 8 and unit in UNITS):
        raise InvalidRequestError(f"expected a grpc-timeout such as 100m, got {text[:20]!r}")
    return int(digits) * UNITS[unit]


def status(code: StatusCode, details: str) -> tuple[Header, ...]:
    """The trailers of a call that did not succeed; long details are cut."""
    encoded = quote(details, safe=PLAIN)
    while len(encoded) > MAX_DETAILS:
        details = details[: len(details) // 2]
        encoded = quote(details, safe=PLAIN)
    return (b"grpc-status", str(code.value).encode()), (b"grpc-message", encoded.encode())


def parse(method: Method, message: bytes) -> Any:  # noqa: ANN401 - a message
    """A request's message. Raises `InvalidRequestError`."""
    try:
        return method.parse(message)
    except DecodeError as error:
        raise InvalidRequestError(f"expected a message of protobuf that the method takes: {error}") from None


def serialize(answer: Message, limit: int) -> bytes:
    """An answer as it travels. Raises `TooLargeError`."""
    message = answer.SerializeToString()
    if len(message) > limit:
        raise TooLargeError(f"the answer is larger than max ({len(message)} vs. {limit} bytes)")
    return frame(message)
