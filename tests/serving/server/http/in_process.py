"""An HTTP server over handlers of a test, in the test's own event loop, and clients that speak bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from serving.server.http import App, Route
from serving.server.http.connection import Patience
from serving.server.http.server import HttpServer
from serving.server.observer import Observer
from serving.server.running import bind

CLOSE = b"Connection: close\r\n\r\n"


@asynccontextmanager
async def serving(
    routes: Sequence[Route],
    *,
    max_body_bytes: int = 1_000_000,
    timeout_seconds: float = 10,
    cors: bool = False,
    observer: Observer | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[int]:
    """A server that runs: its port."""
    app = App(routes, max_body_bytes, timeout_seconds, cors=cors, observer=observer)
    server = HttpServer(app, patience or Patience())
    listening = bind("127.0.0.1", 0, "HTTP")
    await server.start(listening)
    try:
        yield listening.getsockname()[1]
    finally:
        await server.drain(5, shared=False)


async def tell(port: int, *pieces: bytes) -> bytes:
    """What comes back until the server closes, for pieces that reach it one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.001 if len(pieces) > 1 else 0)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    """The statuses of all responses, in their order."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
