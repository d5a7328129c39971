"""Everything that can go wrong with a request or an artifact: one tree, each error with its statuses.

A message says what was expected and what came. Each error knows its HTTP status and its gRPC code, so that no
protocol front decides anew how bad something is.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import ClassVar

DEADLINE_PASSED = "deadline passed"
"""With this message a task is cancelled whose answer would come too late; without it, its client has gone."""


class StatusCode(IntEnum):
    """gRPC's codes for what errors stand for: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class ServerError(Exception):
    """The server could not do what was asked; a fault on its own side unless a subclass says otherwise."""

    status: ClassVar[int] = 500
    code: ClassVar[StatusCode] = StatusCode.INTERNAL
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of HTTP: what the client may do instead."""


class InvalidRequestError(ServerError):
    """The request does not say, or does not hold, what the model or the protocol expects."""

    status = 400
    code = StatusCode.INVALID_ARGUMENT


class FailedPreconditionError(ServerError):
    """The request is well formed, but the model or the server is not in the state that it needs."""

    status = 400
    code = StatusCode.FAILED_PRECONDITION


class NotFoundError(ServerError):
    """No such model, version or path is served."""

    status = 404
    code = StatusCode.NOT_FOUND


class MethodNotAllowedError(ServerError):
    """The path exists, but not for this HTTP method."""

    status = 405
    code = StatusCode.UNIMPLEMENTED

    def __init__(self, message: str, allowed: str) -> None:
        """`allowed`: the methods, as the header `Allow` lists them."""
        super().__init__(message)
        self.headers = ((b"allow", allowed.encode()),)


class TooLargeError(ServerError):
    """The request exceeds a limit of the server; smaller requests are answered."""

    status = 413
    code = StatusCode.RESOURCE_EXHAUSTED


class HeadTooLargeError(TooLargeError):
    """The head of an HTTP request exceeds a limit of the server."""

    status = 431


class UnsupportedEncodingError(ServerError):
    """The body is compressed, or otherwise encoded, in a way that is not read here."""

    status = 415
    code = StatusCode.INVALID_ARGUMENT
    headers = ((b"accept-encoding", b"gzip, deflate"),)


class UnimplementedError(ServerError):
    """The protocol knows what was asked for; this server, like the original, does not do it."""

    status = 501
    code = StatusCode.UNIMPLEMENTED


class UnavailableError(ServerError):
    """Not now: the model is loading, the server is stopping, or its queue is full. Worth another try."""

    status = 503
    code = StatusCode.UNAVAILABLE

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        """`seconds` after which another try is likely to succeed; clients are told whole ones, at least 1."""
        super().__init__(message)
        self.headers = ((b"retry-after", b"%d" % max(1, math.ceil(seconds))),)


class DeadlineError(ServerError):
    """The answer would come later than the client or the configuration allows."""

    status = 504
    code = StatusCode.DEADLINE_EXCEEDED


class BodyTimeoutError(DeadlineError):
    """The client took too long to send its request."""

    status = 408


class BackendError(ServerError):
    """The runtime failed on inputs that fit the model's signature."""


class ArtifactError(ServerError):
    """A version cannot be served: its files are damaged, or the runtime cannot load or run it."""

    code = StatusCode.FAILED_PRECONDITION
