"""Several workers on one port: they serve, count and stop as one."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import urllib3

from .artifacts import images, logits, point, write_onnx
from .processes import ServerProcess, assert_matches, tandem_server
from .test_processes import body, run

pytestmark = pytest.mark.slow

INFER = "/v2/models/fashion/infer"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workers")
    write_onnx(root / "fashion", 1)
    write_onnx(root / "fashion", 2)
    point(root / "fashion", 1)
    return root


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    server = tandem_server("onnxruntime", repository, tmp_path / "log", "--workers=2")
    server.wait_for("/v2/health/ready")
    until(lambda: server.log.count("ready") >= 2)
    yield server
    if server.process.poll() is None:
        assert server.stop() == 0, server.log


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers(server: ServerProcess) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(server.process.pid).children()
    return found


def ask(server: ServerProcess) -> int:
    """The status of a request on a connection of its own."""
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request("POST", f"http://{server.http}{INFER}", body=body()).status


def counted(server: ServerProcess, series: str) -> float:
    page = server.call("GET", "/metrics", Connection="close").body.decode()
    match = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_requests_of_all_workers_are_counted_together(server: ServerProcess) -> None:
    assert [ask(server) for _ in range(60)] == [200] * 60
    given = triton.InferInput("image", [1, 28, 28, 1], "FP32")
    given.set_data_from_numpy(images(1))
    for _ in range(20):
        with triton.InferenceServerClient(
            server.grpc, channel_args=[("grpc.use_local_subchannel_pool", 1)]
        ) as client:
            answer = client.infer("fashion", [given])
            np.testing.assert_allclose(answer.as_numpy("logits"), logits(images(1)), atol=1e-5)
    labels = 'model="fashion",protocol="{}",version="1"'
    for protocol, requests in (("oip-rest", 60), ("oip-grpc", 20)):
        series = f'tandem_requests_total{{code="OK",{labels.format(protocol)}}}'
        assert {counted(server, series) for _ in range(10)} == {requests}
    time.sleep(1.1)  # Histograms are brought up to date every second.
    assert counted(server, 'tandem_batch_rows_count{model="fashion"}') == 80
    assert counted(server, 'tandem_queue_depth{model="fashion"}') == 0
    assert counted(server, 'tandem_model_version{model="fashion",version="1"}') == 1
    memory = counted(server, "process_resident_memory_bytes")
    assert memory == pytest.approx(sum(w.memory_info().rss for w in workers(server)), rel=0.2)
    used = sum(w.cpu_times().user + w.cpu_times().system for w in workers(server))
    assert counted(server, "process_cpu_seconds_total") == pytest.approx(used, abs=0.5)


def test_a_worker_that_is_killed_is_replaced(server: ServerProcess) -> None:
    first, second = workers(server)
    assert ask(server) == 200
    first.send_signal(signal.SIGKILL)
    server.wait_for_log("ended with -9; another starts")
    until(lambda: len(workers(server)) == 2)
    assert [ask(server) for _ in range(20)] == [200] * 20  # while the new one loads, the other answers
    until(lambda: server.log.count("tandem-server INFO ready") == 3)
    assert second in workers(server)
    second.send_signal(signal.SIGTERM)  # one that stops by itself is replaced too
    server.wait_for_log("ended with 0; another starts")
    assert [ask(server) for _ in range(20)] == [200] * 20
    assert (
        counted(server, 'tandem_requests_total{code="OK",model="fashion",protocol="oip-rest",version="1"}')
        == 41
    )


def test_workers_end_with_a_parent_that_is_killed(server: ServerProcess) -> None:
    left = workers(server)
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(left, timeout=15)
    assert alive == []


def test_every_worker_swaps(server: ServerProcess, repository: Path) -> None:
    point(repository / "fashion", 2)
    try:
        until(lambda: server.log.count("version 2 answers") == 2)
        for _ in range(20):
            assert server.call("GET", "/v2/models/fashion", Connection="close").json()["versions"] == ["2"]
    finally:
        point(repository / "fashion", 1)


def test_every_worker_loads_and_unloads_what_one_is_asked_to(server: ServerProcess, repository: Path) -> None:
    def answers() -> set[int]:
        return {ask(server) for _ in range(20)}

    assert answers() == {200}
    assert server.call("POST", "/v2/repository/models/fashion/unload", b"").status == 200
    assert answers() == {404}
    until(lambda: server.log.count("not ready: no model") == 2)  # A killed worker says no more.
    workers(server)[0].send_signal(signal.SIGKILL)
    until(lambda: server.log.count("not ready: no model") == 3)
    assert answers() == {404}  # The worker that has started since knows it, too.
    with triton.InferenceServerClient(server.grpc) as client:
        client.load_model("fashion")
    assert answers() == {200}
    assert server.call("POST", "/v2/repository/models/none/load", b"").status == 404
    broken = write_onnx(repository / "broken", 1)
    (broken / "model.onnx").write_bytes(b"broken")
    try:
        refused = server.call("POST", "/v2/repository/models/broken/load", b"")
        assert refused.status == 400
        assert_matches(
            "model 'broken' is not loaded: .*; worker [0-9]+: model 'broken' is not", refused.error
        )
    finally:
        shutil.rmtree(repository / "broken")


def test_a_second_server_on_its_ports_fails(server: ServerProcess, repository: Path) -> None:
    for flags in ((), ("--workers=2",)):
        for http, grpc, taken in (
            (server.http_port, 0, f"{server.http_port} \\(HTTP\\)"),
            (0, server.grpc_port, f"{server.grpc_port} \\(gRPC\\)"),
        ):
            ports = (f"--http-port={http}", f"--grpc-port={grpc}")
            done = run(
                "tandem_server", "--backend=onnxruntime", f"--model-repository={repository}", *ports, *flags
            )
            assert done.returncode == 1
            assert_matches(f"cannot listen on 127.0.0.1:{taken}", done.stderr.splitlines()[-1])
    assert ask(server) == 200


def test_workers_that_cannot_start_end_the_server(repository: Path, tmp_path: Path) -> None:
    server = tandem_server(
        "onnxruntime", repository, tmp_path / "log", "--workers=2", "--access-log=/no/such/folder/log"
    )
    assert server.process.wait(60) == 1
    assert "giving up" in server.log
    assert "/no/such/folder/log" in server.log
