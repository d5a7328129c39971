"""The ASGI application: from a request to its response, with limits, a deadline, and errors as JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

from serving.server.bodies import ClientLeftError, Receive, compress, read_body
from serving.server.errors import BodyTimeoutError, DeadlineError, NotFoundError, ServerError
from serving.server.http import Request, Response, Route, Router
from serving.server.records import Observe, RequestRecord

log = logging.getLogger("tandem.server")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
)
LONGEST_PATH = 4096
"""Bytes."""


class App:
    """Serves routes over ASGI.

    A body has at most `max_body_bytes`; body and response together take at most `timeout_seconds`. With `cors`,
    pages of other origins may read every response.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        observe: Observe,
        *,
        max_body_bytes: int,
        timeout_seconds: float,
        cors: bool = False,
    ) -> None:
        # Clients ask for few paths, each very often.
        self._find = lru_cache(256)(Router(routes).find)
        self._observe = observe
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._cors = CORS if cors else ()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; the only scope that this application has is HTTP."""
        path = scope["raw_path"].decode("latin-1")
        client = scope["client"]
        record = RequestRecord(scope["method"], path, f"{client[0]}:{client[1]}" if client else "")
        try:
            response = await self._respond(record, scope, receive)
        except ClientLeftError:
            record.status, record.code = 499, "CANCELLED"  # As nginx logs it.
            self._observe(record)
            return
        except asyncio.CancelledError:
            record.status, record.code = 499, "CANCELLED"
            self._observe(record)
            raise
        record.status, record.response_bytes = response.status, len(response.body)
        self._observe(record)
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
            *self._cors,
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(
        self, record: RequestRecord, scope: MutableMapping[str, Any], receive: Receive
    ) -> Response:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        deadline = asyncio.timeout(self._timeout_seconds)
        try:
            async with deadline:
                if self._cors and record.method == "OPTIONS":
                    return Response(b"")
                if len(record.path) > LONGEST_PATH:
                    raise NotFoundError(f"expected a path of at most {LONGEST_PATH} bytes")
                handler, variables = self._find(record.method, record.path)
                body = b""
                if record.method not in ("GET", "HEAD"):
                    body = await read_body(receive, headers, self._max_body_bytes)
                    unread = False
                record.request_bytes = len(body)
                request = Request(record.method, record.path, variables, headers, body, record)
                return await compress(await handler(request), headers)
        except ServerError as error:
            return _failure(record, error, close=unread)
        except TimeoutError:
            if not deadline.expired():
                raise
            seconds = f"{self._timeout_seconds:g} s"
            if unread:
                late = BodyTimeoutError(f"the request was not complete within {seconds}")
                return _failure(record, late, close=True)
            return _failure(record, DeadlineError(f"no response within {seconds}"))
        except ClientLeftError:
            raise
        except Exception:
            log.exception("%s %s failed", record.method, record.path)
            return _failure(record, ServerError("the server failed on this request; its log says why"))


def _failure(record: RequestRecord, error: ServerError, *, close: bool = False) -> Response:
    if error.status == 500:
        log.error("%s %s: %s", record.method, record.path, error)
    record.code = error.code.name
    response = Response.json({"error": str(error)}, error.status)
    # Else the rest of a body that nobody wants would have to be read.
    response.headers = [*error.headers, (b"connection", b"close")] if close else error.headers
    return response
