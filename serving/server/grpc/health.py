"""grpc.health.v1.Health: what probes and clients ask before they send calls.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from serving.server import protos
from serving.server.errors import NotFoundError, UnavailableError
from serving.server.grpc.service import Service

pb = protos.load(Path(__file__).with_name("health.proto"))
Message: TypeAlias = Any


class Health:
    """All services are in one state, that of the server."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services` by their full names; the server itself goes by ""."""
        self._services = {"", *services}
        self._serving = self._stopping = False
        self._changed = asyncio.Event()

    @property
    def service(self) -> Service:
        """As the server takes it."""
        return Service(pb.DESCRIPTOR.services_by_name["Health"], self)

    def set(self, serving: bool) -> None:
        """Say from now on whether the services serve."""
        self._serving = serving
        self._tell()

    def stop(self) -> None:
        """Say that nothing serves, and end every watch."""
        self._serving, self._stopping = False, True
        self._tell()

    async def Check(self, request: Message) -> Message:  # noqa: N802
        """The state now."""
        if request.service not in self._services:
            raise NotFoundError(
                f"expected one of {', '.join(map(repr, sorted(self._services)))}, got {request.service[:80]!r}"
            )
        return pb.HealthCheckResponse(status=self._status)

    async def Watch(self, request: Message) -> AsyncIterator[Message]:  # noqa: N802
        """The state now, and again whenever it changes."""
        if request.service not in self._services:
            yield pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()  # No service comes later.
        last = None
        while True:
            changed = self._changed
            if self._status != last:
                last = self._status
                yield pb.HealthCheckResponse(status=last)
            if self._stopping:
                raise UnavailableError("the server is stopping")
            await changed.wait()

    @property
    def _status(self) -> int:
        name = "SERVING" if self._serving else "NOT_SERVING"
        status: int = pb.HealthCheckResponse.ServingStatus.Value(name)
        return status

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
