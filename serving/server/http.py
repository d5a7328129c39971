"""The little of HTTP that the REST fronts need, straight on ASGI: requests, responses, routes and limits."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.server import exchange
from serving.server.bodies import Bodies, DisconnectedError, Receive, compress
from serving.server.errors import (
    DEADLINE_PASSED,
    BodyTimeoutError,
    DeadlineError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServerError,
)
from serving.server.exchange import Exchange
from serving.server.observer import Observer

log = logging.getLogger("tandem.server")

JSON = "application/json"

Scope = Mapping[str, Any]
Message = Mapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


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
    code: str = "OK"
    """By the names of gRPC's status codes, for the log."""

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


CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
)


class App:
    """The ASGI application: reads requests within limits, finds their routes, answers errors in JSON.

    With `cors`, pages of other origins may read every answer.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        max_body_bytes: int,
        timeout_seconds: float,
        *,
        cors: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._routes = [(re.compile(route.path), route) for route in routes]
        self._bodies = Bodies(max_body_bytes)
        self._timeout_seconds = timeout_seconds
        self._cors = cors
        self._observer = observer or Observer()
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope["client"]
        seen = self._observer.begin(
            scope["method"],
            scope["path"],
            f"{client[0]}:{client[1]}" if client else "",
            headers.get("traceparent"),
            headers.get("tracestate", ""),
        )
        close = self.closing
        try:
            response, close_after = await self._respond(scope, headers, receive)
        except DisconnectedError:
            self._tell(seen, 499, "CANCELLED", 0)  # As nginx has it.
            return
        try:
            encoded, encoding = await compress(response.body, headers.get("accept-encoding"))
        except asyncio.CancelledError:
            self._tell(seen, 499, "CANCELLED", 0)
            return
        sent = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(encoded)).encode()),
            *response.headers,
        ]
        if encoding:
            sent += [(b"content-encoding", encoding), (b"vary", b"accept-encoding")]
        if self._cors:
            sent += CORS
        if close or close_after or self.closing:
            sent.append((b"connection", b"close"))
        for name, value in self._tell(seen, response.status, response.code, len(encoded)):
            sent.append((name.encode(), value.encode()))
        try:
            await send({"type": "http.response.start", "status": response.status, "headers": sent})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else encoded})
        except asyncio.CancelledError:
            return  # The client has gone before it took the answer.

    async def _respond(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> tuple[Response, bool]:
        """The response, errors included, and whether the connection ends with it."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._timeout_seconds, task.cancel, DEADLINE_PASSED)
        body: bytes | None = None
        try:
            route, variables = self._find(scope["method"], scope["path"])
            body = b"" if route.method == "GET" else await self._bodies.read(headers, receive)
            seen = exchange.current.get()
            if seen is not None:
                seen.request_bytes = len(body)
            request = Request(scope["method"], scope["path"], variables, headers, body)
            return await route.handler(request), False
        except asyncio.CancelledError as error:
            if DEADLINE_PASSED not in error.args:
                raise DisconnectedError from None
            if body is None:
                return _failure(
                    BodyTimeoutError(f"the body was not whole within {self._timeout_seconds:g} s")
                ), True
            return _failure(DeadlineError(f"no answer within {self._timeout_seconds:g} s")), False
        except ServerError as error:
            if error.status == 500:
                log.error("%s %s: %s", scope["method"], scope["path"], error)
            # The rest of a body that is refused would be read and thrown away, for ever where it has no end.
            return _failure(error), body is None and _has_body(headers)
        except DisconnectedError:
            raise
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            return _failure(ServerError("the server failed on this request; its log says why")), True
        finally:
            timer.cancel()
            if body is not None:
                self._bodies.release(body)

    def _tell(self, seen: Exchange | None, status: int, code: str, size: int) -> Sequence[tuple[str, str]]:
        if seen is None:
            return ()
        seen.status, seen.code, seen.response_bytes = status, code, size
        return self._observer.end(seen)

    def _find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        allowed = []
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == method or (route.method, method) == ("GET", "HEAD"):
                return route, match.groupdict()
            allowed.append(route.method)
        if self._cors and method == "OPTIONS" and (allowed or path == "*"):
            return Route("GET", path, _preflight), {}
        if allowed:
            raise MethodNotAllowedError(f"expected {' or '.join(sorted(set(allowed)))} {path}, got {method}")
        raise NotFoundError(f"nothing is served at {path[:200]}")


async def _preflight(_request: Request) -> Response:
    return Response(b"")


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


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _failure(error: ServerError) -> Response:
    response = Response.json({"error": str(error)}, error.status)
    headers = ((b"retry-after", b"1"),) if error.status == 503 else ()
    return Response(response.body, status=error.status, headers=headers, code=error.code.name)
