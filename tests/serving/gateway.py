"""A real gateway on free ports, over a small repository in a temporary folder, and stand-ins for servers behind it."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving.repository import POINTER, Pointer, model_dir, write_pointer
from serving.settings import Settings
from serving.targets.tfjs import TARGET

PORTS = (
    "tfjs_port",
    "tf_serving_rest_port",
    "litert_rest_port",
    "torchserve_rest_port",
    "onnxruntime_rest_port",
)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def settings_in(artifacts: Path) -> Settings:
    """Settings with free ports, none of which answers yet."""
    ports: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return dataclasses.replace(Settings(), artifacts=artifacts, stop_seconds=5, **ports)


def serve_version(settings: Settings, version: int) -> None:
    """Move the pointer of tfjs."""
    write_pointer(model_dir(settings.repository, "tfjs", settings.model) / POINTER, Pointer(version))


@contextmanager
def answering(answer: Callable[[str, bytes], bytes], port: int = 0) -> Iterator[int]:
    """A server on loopback that answers any request by its path and body; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def running(
    settings: Settings, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway, answering; stopped at the end, which it must survive being asked for.

    `environment` is what another who runs the Caddyfile would set.
    """
    TARGET.configure(settings)
    launch = TARGET.launch(settings)
    log = settings.artifacts / "gateway.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment, **(environment or {})},
            stdout=file,
            stderr=file,
        )
    try:
        for _ in range(100):
            if process.poll() is not None or _listens(settings):
                break
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(settings.stop_seconds + 5)
    assert process.returncode == 0, log.read_text()


def _listens(settings: Settings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((settings.host, settings.tfjs_port)) == 0
