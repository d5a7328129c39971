"""What the gRPC fronts share: how a service joins a server, and how errors leave it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

from serving.server.errors import ServerError

log = logging.getLogger("tandem.server")

MAX_DETAILS = 2000
"""Characters of an error: details travel in headers, of which clients take 8 KiB."""

Servicer = TypeVar("Servicer")
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Method = Callable[[Servicer, Asked, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Answered]]


@dataclass(frozen=True)
class Service:
    """A gRPC service: its full name and how it joins a server."""

    name: str
    register: Callable[[grpc.aio.Server], None]


def answers_errors(method: Method[Servicer, Asked, Answered]) -> Method[Servicer, Asked, Answered]:
    """Let a servicer's method raise `ServerError`s: they end the call with their own code and message."""

    async def answer(
        servicer: Servicer, request: Asked, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Answered:
        try:
            return await method(servicer, request, context)
        except ServerError as error:
            if error.status == 500:
                log.error("%s: %s", method.__qualname__, error)
            await context.abort(error.code, str(error)[:MAX_DETAILS])
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            log.exception("%s failed", method.__qualname__)
            await context.abort(
                grpc.StatusCode.INTERNAL, "the server failed on this request; its log says why"
            )
        raise AssertionError("abort always raises")

    return answer
