"""The little of HTTP that the REST fronts need, straight on ASGI: requests, responses, routes and limits."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.server.errors import (
    DeadlineError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServerError,
    TooLargeError,
    UnsupportedEncodingError,
)

log = logging.getLogger("tandem.server")

JSON = "application/json"

Scope = Mapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class DisconnectedError(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


@dataclass(frozen=True)
class Request:
    """One HTTP request; `variables` are the named groups of its route, `headers` have lower-case names."""

    method: str
    path: str
    variables: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body as JSON. Raises `InvalidRequestError` with where it breaks."""
        return parse_json(self.body)


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = field(default=())

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """A response of JSON; numpy arrays become lists."""
        return cls(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status=status)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A method, a path as a regular expression that matches it whole, and what answers there."""

    method: str
    path: str
    handler: Handler


class App:
    """The ASGI application: reads requests within limits, finds their routes, answers errors in JSON."""

    def __init__(self, routes: Sequence[Route], max_body_bytes: int, timeout_seconds: float) -> None:
        self._routes = [(re.compile(route.path), route) for route in routes]
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        close = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._answer(scope, receive)
        except DisconnectedError:
            return
        except TimeoutError:
            response = _failure(DeadlineError(f"no answer within {self._timeout_seconds:g} s"))
        except ServerError as error:
            if error.status == 500:
                log.error("%s %s: %s", scope["method"], scope["path"], error)
            response = _failure(error)
            if isinstance(error, TooLargeError) and not _declared_length(scope):
                # The rest of an endless body would be read and thrown away for ever.
                close = True
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            response = _failure(ServerError("the server failed on this request; its log says why"))
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(response.body)).encode()),
            *response.headers,
        ]
        if close or self.closing:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body}
        )

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        route, variables = self._find(scope["method"], scope["path"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = b"" if route.method == "GET" else await self._read(headers, receive)
        return await route.handler(Request(scope["method"], scope["path"], variables, headers, body))

    def _find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        allowed = []
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == method or (route.method, method) == ("GET", "HEAD"):
                return route, match.groupdict()
            allowed.append(route.method)
        if allowed:
            raise MethodNotAllowedError(f"expected {' or '.join(sorted(set(allowed)))} {path}, got {method}")
        raise NotFoundError(f"nothing is served at {path[:200]}")

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        encoding = headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise UnsupportedEncodingError(f"expected a plain body, got Content-Encoding {encoding[:40]!r}")
        limit = self._max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got one of {declared}")
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise TooLargeError(f"expected a body of at most {limit} bytes, got more")
            chunks.append(chunk)
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse_json(text: bytes | memoryview) -> object:
    """JSON as RFC 8259 has it: no NaN, no Infinity, and nested less deep than 1,024 levels."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"expected JSON, got a body that is none: {error}{_hint(bytes(text), error)}"
        ) from None


def _hint(text: bytes, error: orjson.JSONDecodeError) -> str:
    # `pos` counts characters; for the ASCII of numbers these are bytes.
    if re.match(rb"-?(NaN|Infinity)", text[error.pos : error.pos + 9]):
        return "; JSON has no NaN and no Infinity, and the model takes finite numbers"
    if "depth" in str(error):
        return "; at most 1024 levels are read"
    return ""


def _declared_length(scope: Scope) -> bool:
    return any(name == b"content-length" for name, _ in scope["headers"])


def _failure(error: ServerError) -> Response:
    response = Response.json({"error": str(error)}, error.status)
    if error.status == 503:
        return Response(response.body, status=503, headers=((b"retry-after", b"1"),))
    return response
