"""The life of a server process: bind, serve, poll for versions, and stop without dropping a request."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from serving.server.app import App
from serving.server.dataplane import DataPlane
from serving.server.rpc import RpcServer

log = logging.getLogger("tandem.server")


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    plane: DataPlane, app: App, make_rpc: Callable[[], RpcServer], options: argparse.Namespace
) -> None:
    """Serve until SIGTERM or SIGINT. Raises `OSError` if it cannot listen on an address.

    `make_rpc` is called in the event loop, to which grpc.aio binds its server.
    """
    rpc = make_rpc()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    http_socket = None
    if options.http_port is not None:
        http_socket = _bind(options.host, options.http_port, options.idle_timeout_seconds)
    _listen(rpc, options)
    http = _HttpServer(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Tells clients of TensorFlow Serving's protocols that this is not TensorFlow Serving.
            headers=[("x-served-by", "tandem")],
            proxy_headers=False,
            limit_concurrency=options.max_connections + 1,  # uvicorn refuses the one that reaches the limit.
            timeout_keep_alive=options.idle_timeout_seconds,
            timeout_graceful_shutdown=options.grace_seconds,
        )
    )
    await rpc.start()
    poll = asyncio.create_task(_poll(plane, rpc, options.poll_seconds))
    serving = [] if http_socket is None else [asyncio.create_task(http.serve(sockets=[http_socket]))]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *serving], return_when=asyncio.FIRST_COMPLETED)
    plane.stopping = True
    poll.cancel()
    await rpc.set_serving(False)
    waits = (options.pause_seconds, options.grace_seconds)
    log.info("not ready; stopping in %g s, then what has begun has %g s to finish", *waits)
    await asyncio.sleep(options.pause_seconds)
    http.should_exit = True
    await asyncio.gather(rpc.stop(options.grace_seconds), *serving)
    log.info("stopped")


def _bind(host: str, port: int, idle_seconds: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # No SO_REUSEPORT: a second server on this port must fail, not share its requests.
        bound = socket.create_server((host, port), family=family, backlog=2048)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # On Linux: drops clients that do not read their response.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * idle_seconds))
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} (HTTP): {error.strerror}") from None
    log.info("HTTP on %s:%d", host, bound.getsockname()[1])
    return bound


def _listen(rpc: RpcServer, options: argparse.Namespace) -> None:
    addresses = []
    if options.grpc_port is not None:
        host = f"[{options.host}]" if ":" in options.host else options.host
        addresses.append(f"{host}:{options.grpc_port}")
    if options.grpc_socket:
        addresses.append(f"unix:{Path(options.grpc_socket).absolute()}")
    for address in addresses:
        try:
            port = rpc.listen(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} (gRPC): {error}") from None
        log.info("gRPC on %s", address if address.startswith("unix:") else f"{options.host}:{port}")


async def _poll(plane: DataPlane, rpc: RpcServer, seconds: float) -> None:
    was_ready: bool | None = None
    fault = ""
    while True:
        try:
            await plane.models.refresh()
            fault = ""
        except Exception as error:  # One bad folder must not end the server.
            if repr(error) != fault:
                log.exception("the models could not be refreshed; loaded versions stay")
            fault = repr(error)
        if plane.ready != was_ready:
            was_ready = plane.ready
            log.info("ready" if was_ready else "not ready: %s", *([] if was_ready else [plane.account()]))
            await rpc.set_serving(was_ready)
        await asyncio.sleep(seconds)
