"""The benchmark of the servers: that it counts what it says, sees what is wrong, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.benchmarks import callers, report, servers
from tests.benchmarks.contenders import CONTENDERS, ROOT
from tests.benchmarks.encodings import OWN
from tests.benchmarks.processes import Server, ServerError, cpu_seconds
from tests.benchmarks.readings import Endpoint, Measured, Results
from tests.serving.server.artifacts import write_onnx

pytestmark = pytest.mark.thorough

PARENT = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", burn])
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_run_prints_the_table_the_promises_and_the_readings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_onnx(tmp_path / "onnxruntime" / "fashion", 1)
    few = ["--rounds=1", "--calls=5", "--seconds=0.2", "--concurrency=4"]
    file = tmp_path / "readings.json"
    servers.main(["--servers", "tandem-ort", f"--model={tmp_path}", f"--json={file}", *few])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert re.search(r"^tandem-ort +JSON +\d+ ±0 ", printed, re.MULTILINE), printed
    assert re.search(r"failed or answered wrongly: 0$", printed, re.MULTILINE), printed
    assert re.search(r"tandem-ort: start to first answer, s +<= 1.5 +\d", printed), printed
    assert re.search(r"triton's +<= 1.4 +- +not measured", printed), printed
    read = json.loads(file.read_text())["servers"]["tandem-ort"]["protocols"]
    assert read.keys() == {"JSON", "binary", "gRPC"}
    assert all(one["cpu_us"][0] > 50 and one["requests"] > 5 for one in read.values())


def test_the_peers_are_those_that_have_a_program_and_pins() -> None:
    for contender in CONTENDERS.values():
        if contender.peer:
            pins = (ROOT / "tests/benchmarks/peers" / f"{contender.name}.txt").read_text().splitlines()
            assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", line) for line in pins)
            assert (ROOT / "tests/benchmarks/peers" / f"serve_{contender.name}.py").exists()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, b'{"logits": [[1, 2.000001]]}', ""),
        (200, b'{"logits": [[1, 2.0001]]}', "wrong by 1.0e-04"),
        (200, b'{"logits": [[1, NaN]]}', "wrong by nan"),
        (200, b'{"logits": [1, 2]}', "another shape"),
        (200, b'{"probabilities": [[1, 2]]}', "missing"),
        (200, b"<html>", "cannot be read"),
        (503, b'{"error": "busy"}', "status 503"),
    ],
)
def test_every_answer_is_judged(status: int, body: bytes, fault: str) -> None:
    picture = np.zeros((1, 2, 2, 1), np.float32)
    expected = {"logits": np.array([[1, 2]], np.float32)}
    with answering(status, body) as port:
        target = callers.Target(OWN, port, 0, "fashion", "image", picture, expected, os.getpid())
        turn = callers.drive(target, 2, calls=6)
        assert callers.answers(target) == (fault == "")
    assert turn.calls == 6
    assert len(turn.latencies) == (0 if fault else 6)
    assert all(fault in one for one in turn.faults)


def test_a_server_is_ended_with_what_it_left_behind_and_its_dead_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Server([sys.executable, "-c", PARENT], log, dict(os.environ), tmp_path) as server:
        server.wait_until(lambda: "ready" in log.read_text())
        assert cpu_seconds(server.pid) >= 0.29
        (child,) = psutil.Process(server.pid).children()
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with (
        Server(command, tmp_path / "log", dict(os.environ), tmp_path) as server,
        pytest.raises(ServerError, match="no such model"),
    ):
        server.wait_until(lambda: False)


def test_the_verdict_names_what_is_reached_and_what_is_missed() -> None:
    results = Results(32, alone={"onnxruntime": [100e-6, 100e-6]})
    for name, cpu in (("tandem-ort", 200e-6), ("triton", 500e-6), ("mlserver", 550e-6)):
        turns = [callers.Turn([0.001] * 100, cpu * 100, 1.0)] * 2
        endpoints = {"JSON": Endpoint("onnxruntime", turns, turns)}
        results.servers[name] = Measured(CONTENDERS[name], {}, [2.0, 3.0], 80_000_000, endpoints)
    lines = {line.split("  ")[0]: line.split()[-2:] for line in report.verdicts(results).splitlines()}
    assert lines["overhead by JSON, as a share of triton's"] == ["0.25", "reached"]
    assert lines["overhead by JSON, as a share of mlserver's"] == ["0.22", "reached"]
    assert lines["req/s by JSON, times triton's"] == ["1.00", "reached"]
    assert lines["tandem-ort: start to first answer, s"] == ["2.00", "MISSED"]
    assert lines["tandem-ort: memory, MB PSS"] == ["80", "reached"]
    assert lines["overhead by gRPC, as a share of triton's"] == ["not", "measured"]


def test_being_told_to_stop_ends_every_server(tmp_path: Path) -> None:
    write_onnx(tmp_path / "onnxruntime" / "fashion", 1)
    command = [sys.executable, "-m", "tests.benchmarks.servers", "--servers", "tandem-ort"]
    running = subprocess.Popen(
        [*command, f"--model={tmp_path}", "--calls=1000000"], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "round 1" in line:
            break
    started = psutil.Process(running.pid).children(recursive=True)
    assert any("tandem_server" in " ".join(process.cmdline()) for process in started)
    running.terminate()
    assert running.wait(30) == 143
    assert psutil.wait_procs(started, timeout=5)[1] == []
