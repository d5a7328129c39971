"""What the gRPC fronts share: how a service joins a server, and how requests and errors are seen by others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio

from serving.server.dataplane import DataPlane
from serving.server.errors import ServerError
from serving.server.exchange import Exchange
from serving.server.observer import Observer

log = logging.getLogger("tandem.server")

MAX_DETAILS = 6000
"""Bytes of an error's message: it travels in a header, percent-encoded, and clients begin to refuse at 8 KiB."""

Servicer = TypeVar("Servicer")
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Servicer, Asked, Context], Awaitable[Answered]]


@dataclass(frozen=True)
class Service:
    """A gRPC service: its full name and how it joins a server."""

    name: str
    register: Callable[[grpc.aio.Server], None]


def answers_errors(method: Method[Servicer, Asked, Answered]) -> Method[Servicer, Asked, Answered]:
    """Let a servicer's method raise `ServerError`s: they end the call with their own code and message.

    The servicer's data plane, `_plane`, has the observer that hears of each call.
    """

    async def answer(servicer: Servicer, request: Asked, context: Context) -> Answered:
        plane: DataPlane = servicer._plane  # type: ignore[attr-defined]
        observer = plane.observer
        seen = _begin(observer, method.__name__, request, context)
        try:
            answered = await method(servicer, request, context)
        except ServerError as error:
            if error.status == 500:
                log.error("%s: %s", method.__qualname__, error)
            _end(observer, seen, context, error.code.name)
            await context.abort(error.code, _details(error))
        except (asyncio.CancelledError, grpc.aio.AbortError):
            _end(observer, seen, context, "CANCELLED")
            raise
        except Exception:
            log.exception("%s failed", method.__qualname__)
            _end(observer, seen, context, "INTERNAL")
            await context.abort(
                grpc.StatusCode.INTERNAL, "the server failed on this request; its log says why"
            )
        else:
            if seen is not None:
                seen.response_bytes = answered.ByteSize()  # type: ignore[attr-defined]
                _end(observer, seen, context, "OK")
            return answered
        raise AssertionError("abort always raises")

    return answer


def _details(error: ServerError) -> str:
    text = str(error)
    while len(quote(text, safe=" ")) > MAX_DETAILS:
        text = text[: len(text) // 2]
    return text


def _begin(observer: Observer, method: str, request: Any, context: Context) -> Exchange | None:  # noqa: ANN401 - a message
    parent = state = None
    for name, value in context.invocation_metadata() or ():
        if name == "traceparent":
            parent = str(value)
        elif name == "tracestate":
            state = str(value)
    seen = observer.begin("gRPC", method, context.peer(), parent, state or "")
    if seen is not None:
        seen.request_bytes = request.ByteSize()
    return seen


def _end(observer: Observer, seen: Exchange | None, context: Context, code: str) -> None:
    if seen is None:
        return
    seen.code = code
    trace = observer.end(seen)
    if trace:
        context.set_trailing_metadata(tuple(trace))
