"""The one probe that is a script, run against each state of the model."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.k8s.manifests import K8S, of_kind, render, render_with


class ModelServer(BaseHTTPRequestHandler):
    """Answers 200 for the model `fashion`, in whatever state it is."""

    state = "AVAILABLE"

    def do_GET(self) -> None:
        known = self.path == "/v1/models/fashion"
        status = {"model_version_status": [{"version": "1", "state": self.state}]}
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(status if known else {"error": "not found"}, indent=1).encode())

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Own(ModelServer):
        pass

    listener = HTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield listener
    listener.shutdown()
    listener.server_close()


def passes(command: list[str], port: int, model: str = "fashion") -> bool:
    own = [word.replace("127.0.0.1/8501", f"127.0.0.1/{port}") for word in command]
    assert own != command
    done = subprocess.run(own, env={**os.environ, "TANDEM_MODEL": model}, timeout=10, capture_output=True)
    return done.returncode == 0


def test_tf_serving_is_ready_with_a_version_that_is_available(server: HTTPServer, tmp_path: Path) -> None:
    (container,) = of_kind(render(K8S), "Deployment")["tf-serving"]["spec"]["template"]["spec"]["containers"]
    runtimes = of_kind(render_with(".", ["kserve"], tmp_path), "ServingRuntime")
    (other,) = runtimes["tandem-tf-serving"]["spec"]["containers"]
    for command in (each["readinessProbe"]["exec"]["command"] for each in (container, other)):
        server.RequestHandlerClass.state = "AVAILABLE"  # type: ignore[attr-defined]
        assert passes(command, server.server_port)
        for state in ("START", "LOADING", "UNLOADING", "END"):
            server.RequestHandlerClass.state = state  # type: ignore[attr-defined]
            assert not passes(command, server.server_port), state
        assert not passes(command, 1)
    server.RequestHandlerClass.state = "AVAILABLE"  # type: ignore[attr-defined]
    assert not passes(container["readinessProbe"]["exec"]["command"], server.server_port, model="mine")
