"""SIGTERM and SIGKILL under steady load that does not wait for answers: nothing that was begun is dropped."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import images, point, write_manifest, write_onnx
from .processes import ServerProcess, tandem_server
from .test_processes import body

pytestmark = pytest.mark.slow

INTERVAL = 0.004
"""Seconds between two calls of a client, whatever became of those before."""
REFUSED = "refused"
"""The connection was not made: nothing was begun, so nothing was dropped."""


@asynccontextmanager
async def load(*calls: Callable[[], Awaitable[str]]) -> AsyncIterator[list[Counter[str]]]:
    """Begin each call at a steady rate; what became of them, by the words that they return."""
    outcomes: list[Counter[str]] = [Counter() for _ in calls]
    done = asyncio.Event()

    async def one(index: int) -> None:
        try:
            outcomes[index][await calls[index]()] += 1
        except Exception as error:  # noqa: BLE001 - any failure is what the test looks for
            outcomes[index][f"{type(error).__name__}: {error}"] += 1

    async def steadily(index: int) -> None:
        async with asyncio.TaskGroup() as group:
            while not done.is_set():
                group.create_task(one(index))
                await asyncio.sleep(INTERVAL)

    clients = [asyncio.create_task(steadily(index)) for index in range(len(calls))]
    try:
        yield outcomes
    finally:
        done.set()
        await asyncio.gather(*clients)


@asynccontextmanager
async def clients(server: ServerProcess) -> AsyncIterator[tuple[Callable[[], Awaitable[str]], ...]]:
    """REST on connections that are kept, REST on new ones, and gRPC on one channel."""
    data = body()
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 28, 28, 1])
    request = pb.ModelInferRequest(
        model_name="fashion", inputs=[tensor], raw_input_contents=[images(1).tobytes()]
    )
    url = f"http://{server.http}/v2/models/fashion/infer"
    async with (
        aiohttp.ClientSession() as kept,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as anew,
        grpc.aio.insecure_channel(server.grpc) as channel,
    ):
        stub = rpc.GRPCInferenceServiceStub(channel)

        async def rest(session: aiohttp.ClientSession) -> str:
            try:
                async with session.post(url, data=data) as answer:
                    await answer.read()
                    return str(answer.status)
            except aiohttp.ClientConnectorError:
                return REFUSED

        async def infer() -> str:
            try:
                await stub.ModelInfer(request)
            except grpc.aio.AioRpcError as error:
                if "Connection refused" in str(error.details()) or "failed to connect" in str(
                    error.details()
                ):
                    return REFUSED
                raise
            return "200"

        yield lambda: rest(kept), lambda: rest(anew), infer


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_manifest(write_onnx(tmp_path / "repository" / "fashion", 1), "model.onnx")
    point(tmp_path / "repository" / "fashion", 1)
    return tmp_path / "repository"


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_under_load_drops_nothing(repository: Path, tmp_path: Path, workers: int) -> None:
    access = tmp_path / "access"
    flags = (f"--workers={workers}", f"--access-log={access}")
    server = tandem_server("onnxruntime", repository, tmp_path / "log", *flags)
    server.wait_for("/v2/health/ready")
    async with clients(server) as calls, load(*calls) as outcomes:
        await asyncio.sleep(1)
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 15)
        await asyncio.sleep(0.2)
    assert server.process.returncode == 0, server.log
    assert "Traceback" not in server.log
    assert all(set(outcome) <= {"200", REFUSED} for outcome in outcomes), (outcomes, server.log)
    assert min(outcome["200"] for outcome in outcomes) > 10
    # Whatever the server has begun, it has answered.
    lines = [json.loads(line) for line in access.read_text().splitlines()]
    calls_seen = [line["code"] for line in lines if line["protocol"] == "oip-grpc"]
    assert calls_seen == ["OK"] * outcomes[-1]["200"]


async def test_versions_change_under_load_without_a_failure(repository: Path, tmp_path: Path) -> None:
    folder = repository / "fashion"
    server = tandem_server("onnxruntime", repository, tmp_path / "log")
    server.wait_for("/v2/health/ready")

    async def publish(version: int, said: str) -> None:
        point(folder, version)
        await asyncio.to_thread(server.wait_for_log, said)
        await asyncio.sleep(0.2)

    try:
        async with clients(server) as calls, load(*calls) as outcomes:
            await asyncio.sleep(0.3)
            write_manifest(write_onnx(folder, 2), "model.onnx")
            await publish(2, "version 1 is unloaded")
            write_manifest(write_onnx(folder, 3), "model.onnx")
            (folder / "3" / "model.onnx").write_bytes(b"tampered")
            await publish(3, "version 3 is refused")
            await publish(1, "version 2 is unloaded")
        for outcome in outcomes:
            assert set(outcome) == {"200"}, outcomes
            assert outcome["200"] > 50
    finally:
        assert server.stop() == 0


async def test_a_server_that_was_killed_starts_again_on_its_ports(repository: Path, tmp_path: Path) -> None:
    server = tandem_server("onnxruntime", repository, tmp_path / "log")
    server.wait_for("/v2/health/ready")
    async with clients(server) as calls, load(*calls):
        await asyncio.sleep(0.5)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    ports = (f"--http-port={server.http_port}", f"--grpc-port={server.grpc_port}")
    again = tandem_server("onnxruntime", repository, tmp_path / "again", *ports)
    again.http, again.grpc = server.http, server.grpc
    try:
        again.wait_for("/v2/health/ready")
        async with clients(again) as calls, load(*calls) as outcomes:
            await asyncio.sleep(0.3)
        assert all(set(outcome) == {"200"} for outcome in outcomes), outcomes
    finally:
        assert again.stop() == 0


async def test_a_restart_fails_no_call_of_a_client_that_waits_for_a_server(
    repository: Path, tmp_path: Path
) -> None:
    server = tandem_server("onnxruntime", repository, tmp_path / "log", "--workers=2")
    server.wait_for("/v2/health/ready")
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 28, 28, 1])
    request = pb.ModelInferRequest(
        model_name="fashion", inputs=[tensor], raw_input_contents=[images(1).tobytes()]
    )
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)

        async def infer() -> str:
            await stub.ModelInfer(request, wait_for_ready=True)
            return "200"

        async with load(infer) as outcomes:
            await asyncio.sleep(0.5)
            server.process.terminate()
            await asyncio.to_thread(server.process.wait, 30)
            flags = [f"--http-port={server.http_port}", f"--grpc-port={server.grpc_port}", "--workers=2"]
            flags += ["--max-queue=100000", "--max-connections=100000"]  # All that has waited comes at once.
            again = tandem_server("onnxruntime", repository, tmp_path / "again", *flags)
            again.http, again.grpc = server.http, server.grpc
            await asyncio.to_thread(again.wait_for, "/v2/health/ready")
            await asyncio.sleep(0.5)
    assert set(outcomes[0]) == {"200"}, (outcomes, server.log, again.log)
    assert again.stop() == 0
