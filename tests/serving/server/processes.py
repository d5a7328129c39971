"""Servers as processes of their own, on free ports of the loopback."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from .artifacts import images

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
        return port


def infer_body(**inputs: Any) -> bytes:
    """A request of OIP's REST with arrays of int64, or of what becomes float32."""
    tensors = []
    for name, value in inputs.items():
        array = np.asarray(value)
        datatype = "INT64" if array.dtype == np.int64 else "FP32"
        data = array.ravel().tolist()
        tensors.append({"name": name, "datatype": datatype, "shape": list(array.shape), "data": data})
    return json.dumps({"inputs": tensors}).encode()


def oip_body(rows: int = 1) -> bytes:
    """Rows to the model `fashion`, as OIP's REST takes them."""
    return infer_body(image=images(rows))


def assert_matches(pattern: str, text: str) -> None:
    """Assert that a message says what it should."""
    assert re.search(pattern, text, re.DOTALL), text


@dataclass
class Answer:
    """What a REST call brought back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error, which is JSON with this one key."""
        document = self.json()
        assert list(document) == ["error"]
        message: str = document["error"]
        return message


def assert_refused(answer: Answer, status: int, pattern: str) -> None:
    """Assert that an answer is an error of this status, and that it says what it should."""
    assert answer.status == status, answer.body
    assert_matches(pattern, answer.error)


class ServerProcess:
    """A running server; `http` and `grpc` are host:port."""

    def __init__(self, command: str, ports: tuple[int, int], log: Path, *flags: str) -> None:
        self.http_port, self.grpc_port = ports
        self.http, self.grpc = (f"127.0.0.1:{port}" for port in ports)
        self._log = log
        code = f"from serving.server.main import {command}; {command}()"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *flags], stdout=output, stderr=output, cwd=ROOT
            )
        self._pool = urllib3.PoolManager(retries=False)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def call(
        self, method: str, path: str, body: bytes | dict[str, Any] | None = None, **headers: str
    ) -> Answer:
        """One REST call; a dict is sent as JSON."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._pool.request(method, f"http://{self.http}{path}", body=data, headers=names)
        return Answer(answer.status, answer.data, answer.headers)

    def infer_binary(
        self, model: str, name: str, datatype: str, shape: Sequence[int], raw: bytes, **more: Any
    ) -> Answer:
        """One inference by OIP's REST with a binary input."""
        size = {"binary_data_size": len(raw)}
        given = {"name": name, "datatype": datatype, "shape": list(shape), "parameters": size}
        header = json.dumps({"inputs": [given], **more}).encode()
        length = {"Inference_Header_Content_Length": str(len(header))}
        return self.call("POST", f"/v2/models/{model}/infer", header + raw, **length)

    def wait_for(self, path: str, pattern: str = "", seconds: float = 60) -> Answer:
        """Ask until the answer is a 200 that holds `pattern`."""
        end = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log
            try:
                last = answer = self.call("GET", path)
                if answer.status == 200 and re.search(pattern, answer.body.decode()):
                    return answer
            except urllib3.exceptions.HTTPError as error:
                last = error
            time.sleep(0.02)
        raise AssertionError(f"{path} did not answer {pattern!r}: {str(last)[:2000]}\n{self.log}")

    def wait_for_log(self, text: str, seconds: float = 20) -> None:
        """Wait until the log holds `text`."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._pool.clear()
        self.process.terminate()
        return self.process.wait(20)


def tandem_server(
    backend: str, repository: Path, log: Path, *flags: str, ports: tuple[int, int] | None = None
) -> ServerProcess:
    """Start `tandem-server`, on free ports or these of HTTP and gRPC."""
    http, grpc = ports or (free_port(), free_port())
    own = (
        f"--backend={backend}",
        f"--model-repository={repository}",
        "--poll-seconds=0.1",
        "--pause-seconds=0",
    )
    listening = (f"--http-port={http}", f"--grpc-port={grpc}")
    return ServerProcess("tandem_server", (http, grpc), log, *own, *listening, *flags)


def tandem_tf_serving(log: Path, *flags: str) -> ServerProcess:
    """Start `tandem-tf-serving`."""
    http, grpc = free_port(), free_port()
    own = (f"--rest_api_port={http}", "--port", str(grpc), "--pause_seconds=0")
    return ServerProcess("tandem_tf_serving", (http, grpc), log, *own, *flags)


@contextmanager
def _until_the_end(server: ServerProcess) -> Iterator[ServerProcess]:
    """It must end well unless it has been stopped."""
    try:
        yield server
    finally:
        assert server.process.poll() is not None or server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@contextmanager
def running(backend: str, root: Path, *flags: str, ready: bool = True) -> Iterator[ServerProcess]:
    """`tandem-server` over `root/repository`, once it is `ready`."""
    server = tandem_server(backend, root / "repository", root / "log", *flags)
    with _until_the_end(server):
        if ready:
            server.wait_for("/v2/health/ready")
        yield server


@contextmanager
def running_tfs(root: Path, *flags: str, models: Sequence[str] = ("default",)) -> Iterator[ServerProcess]:
    """`tandem-tf-serving`, once `models` (or "model/versions/1") answer; its log is `root/log`."""
    server = tandem_tf_serving(root / "log", *flags)
    with _until_the_end(server):
        for model in models:
            server.wait_for(f"/v1/models/{model}", "AVAILABLE")
        yield server
