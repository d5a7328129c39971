"""The servers as their operators see them: ports, flags, signals, repositories that are not there yet."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.server import flags

from .artifacts import images, point, write_onnx
from .processes import ROOT, ServerProcess, free_port, tandem_server


def run(command: str, *given: str) -> subprocess.CompletedProcess[str]:
    code = f"from serving.server.main import {command}; {command}()"
    return subprocess.run(
        [sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def body() -> bytes:
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, 28, 28, 1],
        "data": images(1).ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()


def test_sigterm_lets_the_request_in_flight_finish_and_exits_with_zero(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    server.wait_for("/v2/health/ready")
    data = body()
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        head = f"POST /v2/models/fashion/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[:100])
        server.wait_for("/v2/health/live")
        server.process.terminate()
        server.wait_for_log("stopping")
        connection.sendall(data[100:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"logits"' in answer
    assert server.process.wait(15) == 0


def test_connections_that_are_open_at_sigterm_get_one_more_answer(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    server.wait_for("/v2/health/ready")
    connections = [http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20) for _ in range(4)]

    def ask(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
        connection.request("POST", "/v2/models/fashion/infer", body())
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("connection")

    assert [ask(connection) for connection in connections] == [(200, None)] * 4
    server.process.terminate()
    server.wait_for_log("stopping")
    assert [ask(connection) for connection in connections] == [(200, "close")] * 4
    assert server.process.wait(15) == 0


def test_a_server_without_models_lives_but_is_not_ready_until_one_is_published(tmp_path: Path) -> None:
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    try:
        server.wait_for("/v2/health/live")
        server.wait_for_log("not ready: no model was found")
        ready = server.call("GET", "/v2/health/ready")
        assert (ready.status, ready.error) == (503, "no model was found")
        write_onnx(tmp_path / "repository" / "fashion", 1)
        server.wait_for("/v2/health/ready")
        assert server.call("POST", "/v2/models/fashion/infer", body()).status == 200
    finally:
        assert server.stop() == 0


def test_a_pointer_to_a_version_that_is_not_there_answers_503_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "fashion"
    write_onnx(folder, 1)
    point(folder, 2)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    try:
        server.wait_for_log("version 2 is refused")
        for answer in (
            server.call("POST", "/v2/models/fashion/infer", body()),
            server.call("GET", "/v2/health/ready"),
        ):
            assert (answer.status, "does not exist" in answer.error) == (503, True)
        assert server.call("GET", "/v2/health/live").status == 200
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(("flag", "taken"), [("--http-port", "HTTP"), ("--grpc-port", "gRPC")])
def test_a_busy_port_is_one_clear_line_and_a_failure(
    oip: ServerProcess, tmp_path: Path, flag: str, taken: str
) -> None:
    ports = {"--http-port": free_port(), "--grpc-port": free_port()}
    ports[flag] = oip.http_port if taken == "HTTP" else oip.grpc_port
    done = run(
        "tandem_server",
        "--backend=onnxruntime",
        f"--model-repository={tmp_path}",
        *(f"{name}={port}" for name, port in ports.items()),
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{ports[flag]} ({taken})" in last
    assert "Traceback" not in done.stderr
    assert oip.call("GET", "/v2/health/ready").status == 200


def test_tandem_server_imports_no_framework_and_no_other_grpc_than_its_own() -> None:
    code = (
        "import sys, serving.server.main, serving.server.protocols.oip_grpc;"
        "from serving.server.backends.base import loader; loader('onnxruntime'); loader('litert');"
        "print([name for name in ('tensorflow', 'torch', 'grpc', 'tritonclient') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--port=99999"], "expected a port from 0 to 65535, got '99999'"),
        (["--no_such_flag=1"], "unrecognized arguments: --no_such_flag=1"),
        ([], "expected --model_base_path or --model_config_file"),
        (["--model_config_file=/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_flags_of_tf_serving_are_errors(given: Sequence[str], message: str) -> None:
    done = run("tandem_tf_serving", *given)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--http-port=http", "argument --http-port: expected a port from 0 to 65535, got 'http'"),
        ("--max-rows=0", "expected a whole number from 1 on, got '0'"),
        ("--max-queue=-3", "expected a whole number from 1 on, got '-3'"),
        ("--threads=all", "expected a whole number from 1 on, or auto, got 'all'"),
        ("--request-timeout-seconds=nan", "expected a number of seconds above 0, got 'nan'"),
        ("--grace-seconds=-1", "expected a number of seconds from 0 on, got '-1'"),
        ("--access-log-sample=2", "expected a number from 0 to 1, got '2'"),
    ],
)
def test_a_limit_that_nothing_could_pass_is_an_error(
    capsys: pytest.CaptureFixture[str], flag: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        flags.parser().parse_args(["--backend=onnxruntime", "--model-repository=x", flag])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err
