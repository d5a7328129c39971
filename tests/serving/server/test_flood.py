"""A server that is asked for more than it can do goes on telling of itself, on both protocols."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import write_slow_onnx
from .processes import tandem_server

pytestmark = pytest.mark.slow

CLIENTS = 32
"""Of each protocol."""
SECONDS = 4.0
PATIENCE = 10.0
"""Seconds in which health and metrics must answer: far more than it takes, far less than a stalled loop would."""


async def test_health_and_metrics_answer_during_a_flood(tmp_path: Path) -> None:
    write_slow_onnx(tmp_path / "repository" / "slow")
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log", "--max-queue=40")
    server.wait_for("/v2/health/ready")
    end = time.monotonic() + SECONDS
    outcomes: Counter[object] = Counter()
    told: Counter[str] = Counter()

    async def flood(ask: Callable[[], Awaitable[object]]) -> None:
        while time.monotonic() < end:
            outcomes[await ask()] += 1

    async def look(name: str, ask: Callable[[], Awaitable[object]], expected: object) -> None:
        while time.monotonic() < end:
            async with asyncio.timeout(PATIENCE):
                assert await ask() == expected, name
            told[name] += 1
            await asyncio.sleep(0.1)

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(f"http://{server.http}", connector=connector) as http,
        grpc.aio.insecure_channel(server.grpc) as channel,
    ):
        inference = rpc.GRPCInferenceServiceStub(channel)
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
        message = pb.ModelInferRequest(
            model_name="slow", inputs=[tensor], raw_input_contents=[np.ones(1, np.float32).tobytes()]
        )
        document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}

        async def infer() -> int:
            async with http.post("/v2/models/slow/infer", json=document) as answer:
                await answer.read()
                return answer.status

        async def infer_by_grpc() -> object:
            try:
                await inference.ModelInfer(message)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        def get(path: str) -> Callable[[], Awaitable[object]]:
            async def ask() -> int:
                async with http.get(path) as answer:
                    await answer.read()
                    return answer.status

            return ask

        async def check() -> object:
            asked = health_pb2.HealthCheckRequest()
            return (await health_pb2_grpc.HealthStub(channel).Check(asked)).status

        async def live() -> object:
            return (await inference.ServerLive(pb.ServerLiveRequest())).live

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(flood(infer))
                group.create_task(flood(infer_by_grpc))
            for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/slow/ready", "/metrics"):
                group.create_task(look(path, get(path), 200))
            group.create_task(look("health", check, health_pb2.HealthCheckResponse.SERVING))
            group.create_task(look("live", live, True))
    assert set(outcomes) <= {200, 503, grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert min(outcomes[200], outcomes[grpc.StatusCode.OK]) > 0
    assert len(told) == 6
    page = server.call("GET", "/metrics").body.decode()
    for protocol, answered in (("oip-rest", 200), ("oip-grpc", grpc.StatusCode.OK)):
        series = f'tandem_requests_total{{code="OK",model="slow",protocol="{protocol}",version="1"}} '
        counted = re.search(re.escape(series) + r"(\S+)", page)
        assert counted is not None
        assert float(counted[1]) == outcomes[answered]
    assert server.stop() == 0
