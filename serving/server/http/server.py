"""The HTTP server: it accepts connections, ends those that wait too long, and leaves without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from serving.server.http.app import App
from serving.server.http.connection import Connection, Patience

LINGER_SECONDS = 0.5
"""How long a connection without a request stays open after SIGTERM: its request may be on the way."""


class HttpServer:
    """Serves an app on one socket."""

    def __init__(self, app: App, patience: Patience) -> None:
        self._app = app
        self._patience = patience
        self._served: set[Connection] = set()
        self._excess: set[Connection] = set()
        """Those that are only told that there are too many."""
        shortest = min(patience.head_seconds, patience.idle_seconds, app.timeout_seconds)
        self._interval = max(0.02, min(1.0, shortest / 10))

    async def start(self, listening: socket.socket) -> None:
        """Accept connections from a socket that listens."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._server = await self._loop.create_server(self._connection, sock=listening, backlog=2048)
        self._check()

    async def drain(self, grace_seconds: float, *, shared: bool) -> None:
        """Accept no more, let clients that are connected send what they have begun, answer that, and close.

        `shared`: other processes accept from the socket, too. What takes longer than `grace_seconds` is given up.
        """
        self._app.closing = True
        end = self._loop.time() + grace_seconds
        # Closing resets what waits to be accepted: let the queue run dry first. Where the socket is shared,
        # the queue is that of other workers too.
        if not shared:
            self._listening.listen(0)
        await asyncio.sleep(0.05)
        last = self._listening.dup()
        self._server.close()
        await asyncio.sleep(0)
        await self._accept_rest(last)
        lingering = min(end, self._loop.time() + LINGER_SECONDS)
        while self._served and self._loop.time() < lingering:
            await asyncio.sleep(0.01)
        while (self._served or self._excess) and self._loop.time() < end:
            for connection in (*self._served, *self._excess):
                connection.shut_down()
            await asyncio.sleep(0.01)
        for connection in (*self._served, *self._excess):
            connection.abort()
        self._checking.cancel()

    async def _accept_rest(self, listening: socket.socket) -> None:
        """Close a socket with nobody waiting on it."""
        accepted = []
        with listening, contextlib.suppress(OSError):
            while True:
                accepted.append(listening.accept()[0])
        for connection in accepted:
            await self._loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> Connection:
        return Connection(self._app, self._patience, self._served, self._excess)

    def _check(self) -> None:
        # One timer for all: each of its own would cost every request more than its route does.
        now = self._loop.time()
        for connection in (*self._served, *self._excess):
            connection.check(now)
        self._checking = self._loop.call_later(self._interval, self._check)
