"""The HTTP server: it accepts connections, and leaves without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from serving.server.connections import Connection, Patience
from serving.server.http import App

LINGER_SECONDS = 0.5
"""How long a connection without a request stays open after SIGTERM: its request may be on the way."""


class HttpServer(uvicorn.Server):
    """uvicorn, whose signals are ours to handle: gRPC has to stop with it."""

    def __init__(self, app: App, patience: Patience, grace_seconds: float) -> None:
        super().__init__(_config(app, patience, grace_seconds))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def drain(self, bound: socket.socket | None, shared: bool) -> None:
        """Accept no more; let clients that are connected already send what they have begun; then shut down."""
        if bound is not None:
            # Closing resets what waits to be accepted: let the queue run dry first. Where the socket is shared,
            # the queue is that of other workers too.
            if not shared:
                bound.listen(0)
            await asyncio.sleep(0.05)
            last = bound.dup()
            for server in getattr(self, "servers", []):
                server.close()
            await asyncio.sleep(0)
            await self._accept_rest(last)
        end = asyncio.get_running_loop().time() + LINGER_SECONDS
        while self.server_state.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        self.should_exit = True

    async def _accept_rest(self, listening: socket.socket) -> None:
        """Close a socket with nobody waiting on it."""
        accepted = []
        with listening, contextlib.suppress(OSError):
            while True:
                accepted.append(listening.accept()[0])
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _config(app: App, limits: Patience, grace_seconds: float) -> uvicorn.Config:
    application: Any = app

    class Limited(Connection):
        patience = limits

    return uvicorn.Config(
        application,
        http=Limited,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=round(limits.idle_seconds) or 1,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )
