"""Errors of requests and artifacts, each with its HTTP status and gRPC code."""

from __future__ import annotations

import logging
from reprlib import Repr

from grpc import StatusCode

log = logging.getLogger("tandem.server")

LONGEST_QUOTE = 120
"""Characters of a client's value in a message."""

_short = Repr()
_short.maxlist = _short.maxtuple = _short.maxdict = 32
_short.maxstring = _short.maxother = _short.maxlong = LONGEST_QUOTE


def quote(value: object) -> str:
    """Return the repr of a client's value, shortened for a message."""
    # Slice before repr: the repr of 30 MB takes seconds.
    text = repr(value[: LONGEST_QUOTE + 1]) if isinstance(value, str | bytes) else _short.repr(value)
    return text if len(text) <= LONGEST_QUOTE + 2 else f"{text[:LONGEST_QUOTE]}…"


class ServerError(Exception):
    """A request failed; the server is at fault unless a subclass says otherwise."""

    status = 500
    code = StatusCode.INTERNAL
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """HTTP headers for the response."""


class InvalidRequestError(ServerError):
    """The request does not fit the model or the protocol."""

    status, code = 400, StatusCode.INVALID_ARGUMENT


class FailedPreconditionError(ServerError):
    """The request is valid, but the model or the server is not in the required state."""

    status, code = 400, StatusCode.FAILED_PRECONDITION


class ForbiddenError(ServerError):
    """The operator has not allowed this operation."""

    status, code = 403, StatusCode.PERMISSION_DENIED


class NotFoundError(ServerError):
    """No such model, version or path is served."""

    status, code = 404, StatusCode.NOT_FOUND


class MethodNotAllowedError(ServerError):
    """The path exists, but not for this HTTP method."""

    status, code = 405, StatusCode.UNIMPLEMENTED


class TooLargeError(ServerError):
    """The request exceeds a limit of the server; smaller requests are answered."""

    status, code = 413, StatusCode.RESOURCE_EXHAUSTED


class UnimplementedError(ServerError):
    """The operation exists in the protocol, but not in this server."""

    status, code = 501, StatusCode.UNIMPLEMENTED


class UnavailableError(ServerError):
    """The model is loading, the server is stopping, or a queue is full; the client should retry."""

    status, code = 503, StatusCode.UNAVAILABLE
    headers = ((b"retry-after", b"1"),)


class DeadlineError(ServerError):
    """The response exceeds the time limit of the client or the configuration."""

    status, code = 504, StatusCode.DEADLINE_EXCEEDED


class BackendError(ServerError):
    """The runtime failed on valid inputs."""


class ArtifactError(ServerError):
    """A version cannot be served: its files are damaged, or the runtime cannot load or run them."""

    code = StatusCode.FAILED_PRECONDITION


def told(error: Exception, what: str) -> ServerError:
    """Return the error to send to the client; errors of the server are logged in full."""
    if not isinstance(error, ServerError):
        log.error("%s failed", what, exc_info=error)
        return ServerError("the server failed on this request; its log says why")
    if error.status == 500:
        log.error("%s: %s", what, error)
    return error
