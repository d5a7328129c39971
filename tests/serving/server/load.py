"""Clients that ask all the time, on kept connections and by one gRPC channel a server, and note what they get."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import images, logits
from .processes import ServerProcess, oip_body

ONE = images(1)


def infer_request(model: str = "fashion") -> pb.ModelInferRequest:
    """One picture to a model."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=ONE.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[ONE.tobytes()])


def slow_request(turns: int) -> pb.ModelInferRequest:
    """A request to the model of `write_slow_onnx`."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="INT64", shape=[1])
    raw = np.array([turns], np.int64).tobytes()
    return pb.ModelInferRequest(model_name="slow", inputs=[tensor], raw_input_contents=[raw])


class Client:
    """Asks one server by REST and gRPC; an answer is "ok" where it is that of the version that it names."""

    def __init__(self, server: ServerProcess) -> None:
        self._base = f"http://{server.http}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._channel = grpc.aio.insecure_channel(server.grpc)
        self._stub = rpc.GRPCInferenceServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self.ready = {"rest": True, "grpc": True}
        """The server's readiness at the last look."""

    async def close(self) -> None:
        await self._session.close()
        await self._channel.close(None)

    async def rest(self) -> str:
        async with self._session.post(f"{self._base}/v2/models/fashion/infer", data=oip_body()) as response:
            if response.status != 200:
                return str(response.status)
            document = await response.json()
        return _judged(document["model_version"], document["outputs"][0]["data"])

    async def grpc(self) -> str:
        response = await self._stub.ModelInfer(infer_request())
        return _judged(response.model_version, np.frombuffer(response.raw_output_contents[0], np.float32))

    async def follow(self) -> None:
        """Look at the server's readiness by both protocols, for ever."""
        while True:
            self.ready = {"rest": await self._rest_ready(), "grpc": await self._grpc_ready()}
            await asyncio.sleep(0.2)

    async def _rest_ready(self) -> bool:
        with suppress(aiohttp.ClientError):
            async with self._session.get(f"{self._base}/v2/health/ready") as response:
                return response.status == 200
        return False

    async def _grpc_ready(self) -> bool:
        with suppress(grpc.aio.AioRpcError):
            answer = await self._health.Check(health_pb2.HealthCheckRequest())
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False


def _judged(version: str, values: Any) -> str:
    return "ok" if np.allclose([values], logits(ONE, int(version)), atol=1e-5) else f"wrong for {version}"


@asynccontextmanager
async def steadily(
    *calls: Callable[[], Awaitable[str]], interval: float
) -> AsyncIterator[list[Counter[str]]]:
    """Begin each call at a steady rate, whatever became of those before; counts what became of them."""
    outcomes: list[Counter[str]] = [Counter() for _ in calls]
    done = asyncio.Event()

    async def one(index: int) -> None:
        try:
            outcome = await calls[index]()
        except grpc.aio.AioRpcError as error:
            outcome = f"{error.code().name}: {error.details()}"
        except Exception as error:  # noqa: BLE001 - any failure is what the test looks for
            outcome = f"{type(error).__name__}: {error}"
        outcomes[index][outcome] += 1

    async def repeat(index: int) -> None:
        async with asyncio.TaskGroup() as group:
            while not done.is_set():
                group.create_task(one(index))
                await asyncio.sleep(interval)

    async with asyncio.TaskGroup() as clients:
        for index in range(len(calls)):
            clients.create_task(repeat(index))
        try:
            yield outcomes
        finally:
            done.set()
