"""The life of a server process: bind, answer, look for new versions, and leave without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from serving.server.dataplane import DataPlane
from serving.server.errors import ServerError
from serving.server.grpc.health import Health
from serving.server.grpc.limits import Limits
from serving.server.grpc.server import GrpcServer
from serving.server.grpc.service import Service
from serving.server.http import App
from serving.server.http.bodies import HELD
from serving.server.http.connection import Patience
from serving.server.http.server import HttpServer
from serving.server.workers import Inherited

log = logging.getLogger("tandem.server")


class StartError(Exception):
    """The server cannot start; the message is for its operator."""


@dataclass(frozen=True)
class Listening:
    """Where a server listens (a port of None: not at all) and what it bears."""

    host: str
    http_port: int | None
    grpc_port: int | None
    max_message_bytes: int
    poll_seconds: float
    grace_seconds: float
    patience: Patience = field(default_factory=Patience)
    inherited: Inherited | None = None
    """Where this process is one of several on these ports."""
    grpc_socket: str = ""
    """The path of a Unix socket for gRPC, too; "": none."""
    grpc_options: tuple[tuple[str, str | int], ...] = ()
    """Channel arguments, which go over the server's own choices."""
    grpc_tls: ssl.SSLContext | None = None
    """TLS for gRPC; None: without."""


def run(plane: DataPlane, app: App, services: Callable[[], Sequence[Service]], listening: Listening) -> None:
    """Serve until SIGTERM or SIGINT. Raises `StartError` where a port cannot be had.

    `services` are made only when the HTTP port is ours, for their modules may take seconds to import.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plane, app, services, listening))


async def _serve(
    plane: DataPlane, app: App, services: Callable[[], Sequence[Service]], listening: Listening
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    inherited = listening.inherited
    if inherited is not None:
        asyncio.get_running_loop().add_reader(inherited.parent, stop.set)
        # Among workers, only those that can answer take requests: those of one that is restarted would fail.
        http_socket: socket.socket | None = inherited.http
        grpc_sockets = [inherited.grpc]
        await plane.models.join(inherited.folder)
        await _refresh(plane)
    else:
        http_socket = (
            None if listening.http_port is None else bind(listening.host, listening.http_port, "HTTP")
        )
        grpc_sockets = _grpc_sockets(listening)
    made = services()
    health = Health(service.name for service in made)
    grpc = GrpcServer([health.service, *made], _grpc_limits(listening), plane.observer, listening.grpc_tls)
    await grpc.start(*grpc_sockets)
    http = HttpServer(app, listening.patience)
    poll = asyncio.create_task(_poll(plane, health, listening.poll_seconds))
    sampling = asyncio.create_task(_sample(plane))
    if http_socket is not None:
        await http.start(http_socket)
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, poll], return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping: what is in flight has %g s to finish", listening.grace_seconds)
    plane.stopping = True
    poll.cancel()
    sampling.cancel()
    if inherited is not None:
        asyncio.get_running_loop().remove_reader(inherited.parent)
    health.stop()
    shared = inherited is not None
    draining = [grpc.drain(listening.grace_seconds, shared=shared)]
    if http_socket is not None:
        draining.append(http.drain(listening.grace_seconds, shared=shared))
    await asyncio.gather(*draining)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(plane.models.close(), listening.grace_seconds)
    plane.observer.close()
    log.info("stopped")
    for task in done - {stopped}:
        task.result()  # Neither ends by itself: its exception is why the server stopped.
    if plane.models.loading:
        # Nothing interrupts a load, and the interpreter would wait for its thread.
        logging.shutdown()
        os._exit(0)


def bind(host: str, port: int, protocol: str) -> socket.socket:
    """A socket that listens, for the protocol that a message may name. Raises `StartError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # No SO_REUSEPORT: a second server on this port must fail, not share its requests.
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port} ({protocol}): {error.strerror}") from None
    bound.setblocking(False)
    log.info("%s on %s:%d", protocol, host, bound.getsockname()[1])
    return bound


def _grpc_sockets(listening: Listening) -> list[socket.socket]:
    found = []
    if listening.grpc_port is not None:
        found.append(bind(listening.host, listening.grpc_port, "gRPC"))
    if listening.grpc_socket:
        path = Path(listening.grpc_socket)
        if path.is_socket():
            path.unlink()  # Of a server that was killed.
        try:
            found.append(socket.socket(socket.AF_UNIX))
            found[-1].bind(listening.grpc_socket)
            found[-1].listen(2048)
        except OSError as error:
            raise StartError(f"cannot listen on {path} (gRPC): {error.strerror}") from None
        found[-1].setblocking(False)
        log.info("gRPC on %s", path)
    return found


def _grpc_limits(listening: Listening) -> Limits:
    patience = listening.patience
    return Limits(
        message_bytes=listening.max_message_bytes,
        answer_bytes=listening.max_message_bytes,
        calls=patience.connections,
        connections=patience.connections,
        head_seconds=patience.head_seconds,
        idle_seconds=patience.idle_seconds,
        held_bytes=HELD * listening.max_message_bytes,
    ).by(listening.grpc_options)


async def _poll(plane: DataPlane, health: Health, seconds: float) -> None:
    was_ready: bool | None = None
    while True:
        await _refresh(plane)
        if plane.ready != was_ready:
            was_ready = plane.ready
            log.info("ready" if was_ready else "not ready: %s", *([] if was_ready else [plane.account()]))
            health.set(was_ready)
        await asyncio.sleep(seconds)


async def _refresh(plane: DataPlane) -> None:
    try:
        await plane.models.refresh()
    except (OSError, ServerError):
        log.exception("the models could not be refreshed; what serves goes on")


async def _sample(plane: DataPlane) -> None:
    while True:
        plane.metrics.sample()
        await asyncio.sleep(1)
