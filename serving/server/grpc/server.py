"""The gRPC server: it accepts connections, ends those that wait too long, and leaves without dropping a call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable, Mapping

from serving.server.grpc.connection import Connection
from serving.server.grpc.limits import Limits
from serving.server.grpc.service import Method, Service
from serving.server.observer import Observer

ARRIVING_SECONDS = 0.1
"""For calls of clients that connected as the server stopped."""


class GrpcServer:
    """Serves the methods of some services."""

    def __init__(
        self,
        services: Iterable[Service],
        limits: Limits,
        observer: Observer,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.observer = observer
        self.connections: set[Connection] = set()
        self.calls = 0
        """Being answered now."""
        self.held = 0
        """Bytes of their requests."""
        self._tls = tls
        self.methods: Mapping[str, Method] = dict(
            item for service in services for item in service.methods().items()
        )
        """What answers, by its path."""
        self._listening: list[tuple[socket.socket, asyncio.Server]] = []

    async def start(self, *listening: socket.socket) -> None:
        """Accept connections from sockets that listen."""
        self._loop = asyncio.get_running_loop()
        for each in listening:
            server = await self._loop.create_server(self._connection, sock=each, backlog=2048, ssl=self._tls)
            self._listening.append((each, server))
        shortest = min(self.limits.head_seconds, self.limits.idle_seconds)
        self._interval = max(0.02, min(1.0, shortest / 10))
        self._check()

    async def drain(self, grace_seconds: float, *, shared: bool) -> None:
        """Accept no more, answer every call that clients begin before they hear of it, and close.

        Clients are told by GOAWAY, and begin their next calls on a new connection: https://www.rfc-editor.org/rfc/rfc9113#section-6.8.
        `shared`: other processes accept from the sockets, too. What takes longer than `grace_seconds` is given up.
        """
        end = self._loop.time() + grace_seconds
        for listening, server in self._listening:
            # Closing resets what waits to be accepted: let the queue run dry first. Where the socket is shared,
            # the queue is that of other workers too.
            if not shared:
                listening.listen(0)
            await asyncio.sleep(0.05)
            last = listening.dup()
            server.close()
            await asyncio.sleep(0)
            await self._accept_rest(last)
        await asyncio.sleep(ARRIVING_SECONDS)
        for connection in list(self.connections):
            connection.drain()
        while self.connections and self._loop.time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        self._checking.cancel()

    async def _accept_rest(self, listening: socket.socket) -> None:
        """Close a socket with nobody waiting on it."""
        accepted = []
        with listening, contextlib.suppress(OSError):
            while True:
                accepted.append(listening.accept()[0])
        for connection in accepted:
            await self._loop.connect_accepted_socket(self._connection, connection, ssl=self._tls)

    def _connection(self) -> Connection:
        return Connection(self)

    def _check(self) -> None:
        # One timer for all: each of its own would cost every call more than its handler does.
        now = self._loop.time()
        for connection in list(self.connections):
            connection.check(now)
        self._checking = self._loop.call_later(self._interval, self._check)
