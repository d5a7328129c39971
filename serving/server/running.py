"""The life of a server process: bind, answer, look for new versions, and leave without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health  # type: ignore[attr-defined]

from serving.server.dataplane import DataPlane
from serving.server.errors import ServerError
from serving.server.http import App
from serving.server.http.connection import Patience
from serving.server.http.server import HttpServer
from serving.server.protocols.grpc_service import Service
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
    grpc_credentials: grpc.ServerCredentials | None = None
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
        bound: socket.socket | None = inherited.http
        await _refresh(plane)
    else:
        bound = None if listening.http_port is None else bind(listening.host, listening.http_port)
    made = services()
    health = grpc_health.HealthServicer()
    grpc_server = await _start_grpc(made, health, listening)
    http = HttpServer(app, listening.patience)
    names = ["", *(service.name for service in made)]
    poll = asyncio.create_task(_poll(plane, health, names, listening.poll_seconds))
    sampling = asyncio.create_task(_sample(plane))
    if bound is not None:
        await http.start(bound)
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, poll], return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping: what is in flight has %g s to finish", listening.grace_seconds)
    plane.stopping = True
    poll.cancel()
    sampling.cancel()
    if inherited is not None:
        asyncio.get_running_loop().remove_reader(inherited.parent)
    await health.enter_graceful_shutdown()
    end = asyncio.get_running_loop().time() + listening.grace_seconds
    if bound is not None:
        await http.drain(listening.grace_seconds, shared=inherited is not None)
    # Last, because gRPC cancels calls that reach a server which has stopped but whose process goes on.
    await grpc_server.stop(max(1.0, end - asyncio.get_running_loop().time()))
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


def bind(host: str, port: int) -> socket.socket:
    """The socket for HTTP, listening. Raises `StartError`."""
    try:
        # No SO_REUSEPORT: a second server on this port must fail, not share its requests.
        bound = socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port} (HTTP): {error.strerror}") from None
    bound.setblocking(False)
    log.info("HTTP on %s:%d", host, bound.getsockname()[1])
    return bound


def free_grpc_port(host: str, port: int) -> int:
    """The port for the gRPC of several workers: found free now. Raises `StartError`."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port} (gRPC): {error.strerror}") from None
        found: int = probe.getsockname()[1]
        return found


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def _start_grpc(
    services: Sequence[Service], health: grpc_health.HealthServicer, listening: Listening
) -> grpc.aio.Server:
    server = grpc.aio.server(
        maximum_concurrent_rpcs=listening.patience.connections,
        options=[
            ("grpc.so_reuseport", int(listening.inherited is not None)),
            ("grpc.max_receive_message_length", listening.max_message_bytes),
            ("grpc.max_send_message_length", listening.max_message_bytes),
            *listening.grpc_options,
        ],
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for service in services:
        service.register(server)
    if listening.grpc_port is not None:
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        port = _add_grpc(server, f"{host}:{listening.grpc_port}", listening)
        log.info("gRPC on %s:%d", host, port)
    if listening.grpc_socket:
        _add_grpc(server, f"unix:{listening.grpc_socket}", listening)
        log.info("gRPC on %s", listening.grpc_socket)
    await server.start()
    return server


def _add_grpc(server: grpc.aio.Server, address: str, listening: Listening) -> int:
    try:
        if listening.grpc_credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, listening.grpc_credentials)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address} (gRPC): {error}") from None
    if port == 0:
        raise StartError(f"cannot listen on {address} (gRPC)")
    return port


async def _poll(
    plane: DataPlane, health: grpc_health.HealthServicer, names: Sequence[str], seconds: float
) -> None:
    status = health_pb2.HealthCheckResponse
    was_ready: bool | None = None
    while True:
        await _refresh(plane)
        if plane.ready != was_ready:
            was_ready = plane.ready
            log.info("ready" if was_ready else "not ready: %s", *([] if was_ready else [plane.account()]))
            for name in names:
                await health.set(name, status.SERVING if was_ready else status.NOT_SERVING)
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
