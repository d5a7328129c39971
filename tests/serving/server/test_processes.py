"""The servers as their operators see them: ports, flags, signals, repositories that are not there yet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.server import flags

from .artifacts import point, write_onnx
from .processes import ROOT, ServerProcess, assert_matches, free_port, oip_body, running


def run(command: str, *given: str) -> subprocess.CompletedProcess[str]:
    code = f"from serving.server.main import {command}; {command}()"
    return subprocess.run(
        [sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_server_without_models_lives_but_is_not_ready_until_one_is_published(tmp_path: Path) -> None:
    mislaid = tmp_path / "repository" / "fashion" / "model.onnx"
    mislaid.parent.mkdir(parents=True)
    mislaid.touch()
    with running("onnxruntime", tmp_path, ready=False) as server:
        server.wait_for("/v2/health/live")
        server.wait_for_log("not ready: no model was found")
        ready = server.call("GET", "/v2/health/ready")
        assert ready.status == 503
        assert ready.error.startswith("no model was found; expected <model>/<version>/model.onnx")
        write_onnx(tmp_path / "repository" / "fashion", 1)
        server.wait_for("/v2/health/ready")
        assert server.call("POST", "/v2/models/fashion/infer", oip_body()).status == 200


def test_a_pointer_to_a_version_that_is_not_there_answers_503_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "fashion"
    write_onnx(folder, 1)
    point(folder, 2)
    with running("onnxruntime", tmp_path, ready=False) as server:
        server.wait_for_log("version 2 is refused")
        for answer in (
            server.call("POST", "/v2/models/fashion/infer", oip_body()),
            server.call("GET", "/v2/health/ready"),
        ):
            assert (answer.status, "does not exist" in answer.error) == (503, True)
        assert server.call("GET", "/v2/health/live").status == 200


def test_a_version_that_cannot_be_read_leaves_the_other_models_serving(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    (tmp_path / "repository" / "other" / "1" / "manifest.json").mkdir(parents=True)
    with running("onnxruntime", tmp_path, ready=False) as server:
        server.wait_for("/v2/models/fashion/ready")
        server.wait_for_log("version 1 is refused")
        error = server.call("GET", "/v2/health/ready").error
        assert_matches("^model other is not ready: version 1 is END: .*IsADirectoryError", error)


def test_a_stop_does_not_wait_for_a_load(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    os.mkfifo(tmp_path / "repository" / "fashion" / "1" / "manifest.json")  # Whose reader waits for ever.
    with running("onnxruntime", tmp_path, "--grace-seconds=1", ready=False) as server:
        server.wait_for("/v2/health/live")
        end = time.monotonic() + 20
        while "version 1 is LOADING" not in (answer := server.call("GET", "/v2/health/ready")).error:
            assert (answer.status, time.monotonic() < end) == (503, True), answer


@pytest.mark.parametrize(("flag", "taken"), [("--http-port", "HTTP"), ("--grpc-port", "gRPC")])
def test_a_busy_port_is_one_clear_line_and_a_failure(
    oip: ServerProcess, tmp_path: Path, flag: str, taken: str
) -> None:
    ports = {"--http-port": free_port(), "--grpc-port": free_port()}
    ports[flag] = oip.http_port if taken == "HTTP" else oip.grpc_port
    given = ("--backend=onnxruntime", f"--model-repository={tmp_path}")
    done = run("tandem_server", *given, *(f"{name}={port}" for name, port in ports.items()))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{ports[flag]} ({taken})" in last
    assert "Traceback" not in done.stderr
    assert oip.call("GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--http-port=http", "argument --http-port: expected a port from 0 to 65535, got 'http'"),
        ("--max-rows=0", "expected a whole number from 1 on, got '0'"),
        ("--max-queue=-3", "expected a whole number from 1 on, got '-3'"),
        ("--threads=all", "expected a whole number from 1 on, got 'all'"),
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
