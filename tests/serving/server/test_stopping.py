"""Servers that stop, restart and change versions under load: what has begun is answered."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import point, write_manifest, write_onnx, write_slow_onnx
from .load import Client, slow_request, steadily
from .processes import ServerProcess, infer_body, oip_body, running, tandem_server

PAUSE = "--pause-seconds=1"
SLOW = "/v2/models/slow/infer"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`fashion` in version 1, with a manifest."""
    write_manifest(write_onnx(tmp_path / "repository" / "fashion", 1), batched=True)
    point(tmp_path / "repository" / "fashion", 1)
    return tmp_path / "repository"


@pytest.mark.slow
async def test_clients_that_follow_readiness_lose_nothing_in_a_rolling_update(
    repository: Path, tmp_path: Path
) -> None:
    def start(name: str, ports: tuple[int, int] | None = None) -> ServerProcess:
        return tandem_server("onnxruntime", repository, tmp_path / name, PAUSE, ports=ports)

    servers = [start("left"), start("right")]
    for server in servers:
        server.wait_for("/v2/health/ready")
    clients = [Client(server) for server in servers]

    def balanced(kind: str) -> Callable[[], Awaitable[str]]:
        async def ask() -> str:
            outcome: str = await getattr(random.choice([c for c in clients if c.ready[kind]]), kind)()
            return outcome

        return ask

    async with AsyncExitStack() as stack:
        for client in clients:
            stack.push_async_callback(client.close)
            stack.callback(asyncio.create_task(client.follow()).cancel)
        async with steadily(balanced("rest"), balanced("grpc"), interval=0.005) as outcomes:
            for turn in range(3):
                index = turn % 2
                await asyncio.sleep(0.5)
                assert await asyncio.to_thread(servers[index].stop) == 0
                assert "Traceback" not in servers[index].log
                ports = (servers[index].http_port, servers[index].grpc_port)
                servers[index] = start(f"again{turn}", ports)
                await asyncio.to_thread(servers[index].wait_for, "/v2/health/ready")
                async with asyncio.timeout(20):
                    while not all(clients[index].ready.values()):
                        await asyncio.sleep(0.05)
    assert [set(outcome) for outcome in outcomes] == [{"ok"}, {"ok"}], outcomes
    assert min(outcome["ok"] for outcome in outcomes) > 500
    assert [server.stop() for server in servers] == [0, 0]


@pytest.mark.slow
async def test_versions_change_under_load_without_a_failure(repository: Path, tmp_path: Path) -> None:
    folder = repository / "fashion"
    server = tandem_server("onnxruntime", repository, tmp_path / "log")
    server.wait_for("/v2/health/ready")

    async def publish(version: int, said: str) -> None:
        point(folder, version)
        await asyncio.to_thread(server.wait_for_log, said)
        await asyncio.sleep(0.2)

    async with AsyncExitStack() as stack:
        client = Client(server)
        stack.push_async_callback(client.close)
        outcomes = await stack.enter_async_context(steadily(client.rest, client.grpc, interval=0.004))
        await asyncio.sleep(0.2)
        write_manifest(write_onnx(folder, 2))
        await publish(2, "version 1 is unloaded")
        assert server.call("GET", "/v2/models/fashion").json()["versions"] == ["2"]
        write_manifest(write_onnx(folder, 3))
        (folder / "3" / "model.onnx").write_bytes(b"tampered")
        await publish(3, "version 3 is refused")
        refused = server.call("GET", "/v2/models/fashion/versions/3")
        assert (refused.status, "model.onnx was changed: sha256" in refused.error) == (404, True)
        await publish(1, "version 2 is unloaded")
    assert [set(outcome) for outcome in outcomes] == [{"ok"}, {"ok"}], outcomes
    assert min(outcome["ok"] for outcome in outcomes) > 50
    assert server.log.count("is refused") == 1  # Said once, not at every poll.
    assert server.stop() == 0


async def test_a_stop_answers_all_that_has_begun(repository: Path, tmp_path: Path) -> None:
    write_slow_onnx(repository / "slow")
    server = tandem_server("onnxruntime", repository, tmp_path / "log")
    server.wait_for("/v2/health/ready")
    async with (
        aiohttp.ClientSession() as session,
        grpc.aio.insecure_channel(server.grpc) as channel,
        asyncio.TaskGroup() as group,
    ):
        stub = rpc.GRPCInferenceServiceStub(channel)

        async def rest() -> int:
            async with session.post(f"http://{server.http}{SLOW}", data=infer_body(x=[600])) as response:
                await response.read()
                return response.status

        asked = [group.create_task(rest()) for _ in range(4)]
        called = [group.create_task(_answer(stub.ModelInfer(slow_request(600)))) for _ in range(4)]
        await asyncio.to_thread(server.wait_for, "/metrics", r'tandem_queue_depth\{model="slow"\} 7')
        server.process.terminate()
    assert [task.result() for task in asked] == [200] * 4
    assert [len(task.result().outputs) for task in called] == [1] * 4
    assert server.process.wait(20) == 0


async def _answer(call: Awaitable[pb.ModelInferResponse]) -> pb.ModelInferResponse:
    return await call


def test_a_request_that_is_on_its_way_is_answered_and_the_connection_closed(
    repository: Path, tmp_path: Path
) -> None:
    server = tandem_server("onnxruntime", repository, tmp_path / "log", PAUSE)
    server.wait_for("/v2/health/ready")
    data = oip_body()
    head = (
        f"POST /v2/models/fashion/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    )
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(head + data)
        first = connection.recv(65536)
        while not first.endswith(b"]}]}"):
            first += connection.recv(65536)
        assert b"connection: close" not in first
        connection.sendall(head + data[:100])
        server.process.terminate()
        server.wait_for_log("not ready; stopping in 1 s")
        ready = server.call("GET", "/v2/health/ready")
        assert (ready.status, ready.error) == (503, "the server is stopping")
        connection.sendall(data[100:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert b'"logits"' in answer
    assert server.process.wait(15) == 0


def test_a_run_without_end_holds_up_neither_the_stop_nor_the_access_log(
    repository: Path, tmp_path: Path
) -> None:
    write_slow_onnx(repository / "slow")
    flags = ("--pause-seconds=0.1", "--grace-seconds=1", f"--access-log={tmp_path / 'access'}")
    server = tandem_server("onnxruntime", repository, tmp_path / "log", *flags)
    server.wait_for("/v2/health/ready")
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        data = infer_body(x=[1_000_000])
        connection.sendall(f"POST {SLOW} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(0.3)
        assert server.call("GET", "/v2/health/live").status == 200  # The run holds up nobody else, either.
        server.process.terminate()
        assert connection.recv(65536).startswith(b"HTTP/1.1 503")
    assert server.process.wait(10) == 0
    last = json.loads((tmp_path / "access").read_text().splitlines()[-1])
    assert (last["path"], last["status"], last["code"]) == (SLOW, 503, "UNAVAILABLE")


def test_watchers_of_health_hear_first_that_the_server_stops(repository: Path, tmp_path: Path) -> None:
    server = tandem_server("onnxruntime", repository, tmp_path / "log", PAUSE)
    server.wait_for("/v2/health/ready")
    told = health_pb2.HealthCheckResponse
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="none"))
        assert next(unknown).status == told.SERVICE_UNKNOWN
        idle = rpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(lambda: time.sleep(60), 0))
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == told.SERVING
        server.process.terminate()
        assert next(watch).status == told.NOT_SERVING
        # Streams that nobody uses do not last for the whole grace of 10 s.
        assert server.process.wait(8) == 0
        idle.cancel()


@pytest.mark.slow
def test_memory_is_back_at_its_level_after_200_swaps(repository: Path, tmp_path: Path) -> None:
    folder = repository / "fashion"
    write_onnx(folder, 2)
    levels: list[float] = []
    with running("onnxruntime", tmp_path, "--poll-seconds=0.02") as server:
        process = psutil.Process(server.process.pid)
        for swap in range(250):
            version = 2 - swap % 2
            point(folder, version)
            server.wait_for("/v2/models/fashion", f'"versions":\\["{version}"\\]')
            assert server.call("POST", "/v2/models/fashion/infer", oip_body()).status == 200
            if swap % 50 == 49:
                levels.append(process.memory_full_info().uss / 1e6)
        # The first 50 fill pools of memory and threads that later ones use.
        assert levels[-1] - levels[0] < 2, levels
        assert server.log.count("is unloaded") >= 249
    print(levels)
