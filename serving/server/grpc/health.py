"""grpc.health.v1.Health: what probes and clients ask before they send calls.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from serving.server.errors import NotFoundError, UnavailableError


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """All services are in one state, that of the server."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services` by their full names; the server itself goes by ""."""
        self._services = {"", *services}
        self._serving = self._stopping = False
        self._changed = asyncio.Event()

    def set(self, serving: bool) -> None:
        """Say from now on whether the services serve."""
        self._serving = serving
        self._tell()

    def stop(self) -> None:
        """Say that nothing serves, and end every watch."""
        self._serving, self._stopping = False, True
        self._tell()

    async def Check(self, request: HealthCheckRequest, _context: object) -> HealthCheckResponse:  # noqa: N802
        """The state now."""
        if request.service not in self._services:
            raise NotFoundError(
                f"expected one of {', '.join(sorted(self._services))}, got {request.service[:80]!r}"
            )
        return HealthCheckResponse(status=self._status)

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, _context: object
    ) -> AsyncIterator[HealthCheckResponse]:
        """The state now, and again whenever it changes."""
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()  # No service comes later.
        last = None
        while True:
            changed = self._changed
            if self._status != last:
                last = self._status
                yield HealthCheckResponse(status=last)
            if self._stopping:
                raise UnavailableError("the server is stopping")
            await changed.wait()

    @property
    def _status(self) -> HealthCheckResponse.ServingStatus:
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
