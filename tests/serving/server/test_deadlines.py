"""Deadlines that pass while a run holds the event loop, where nothing can interrupt it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import ngh2
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.server import run_costs
from serving.server.dataplane import DataPlane
from serving.server.grpc.limits import Limits as GrpcLimits
from serving.server.grpc.server import GrpcServer
from serving.server.limits import Limits
from serving.server.loading import Loaded
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.observer import Observer
from serving.server.policies import ModelConfig, specific
from serving.server.protocols import oip_grpc, oip_rest
from serving.server.run_threads import RunThreads
from serving.server.running import bind
from serving.server.signature import Tensors

from .http.in_process import serving, statuses, tell
from .test_batching import Doubling

SERVICE = b"/inference.GRPCInferenceService/"
RUN_SECONDS = 0.4
TIMES = {"in time": 20.0, "too late": 0.3, "late before it runs": 1e-9}


class Counting(Doubling):
    """Notes its runs."""

    runs = 0

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.runs += 1
        return super().run(signature, inputs, outputs)


@pytest.fixture
def servable() -> Counting:
    return Counting(RUN_SECONDS)


@pytest.fixture
async def plane(
    servable: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DataPlane]:
    """One model whose runs hold the event loop for `RUN_SECONDS`."""
    monkeypatch.setattr(run_costs, "SHORT_SECONDS", 60.0)
    config = ModelConfig("doubling", tmp_path, specific(1))
    with RunThreads(1) as threads:
        metrics = Metrics()
        found = {"doubling": config}
        models = Models(lambda: found, lambda _: Loaded(servable, 1e-6), threads, metrics, Limits(64, 64))
        plane = DataPlane(models, metrics, threads, "onnxruntime")
        await models.refresh()
        yield plane
        await models.close()


def counted(plane: DataPlane, code: str) -> bool:
    return f'tandem_requests_total{{code="{code}",model="doubling"' in plane.metrics.page().decode()


def ask_grpc(port: int, method: str, seconds: float) -> tuple[bytes, bytes]:
    """The status and the body of a call, by a client that keeps no deadline of its own."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
    message = pb.ModelInferRequest(
        model_name="doubling", inputs=[tensor], raw_input_contents=[np.ones(1, np.float32).tobytes()]
    ).SerializeToString()
    client = ngh2.Connection(ngh2.Role.CLIENT)
    client.initiate_connection()
    head = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"x"),
        (b":path", SERVICE + method.encode()),
    ]
    timeout = b"%dn" % (seconds * 1e9) if seconds < 0.09 else b"%dm" % (seconds * 1e3)
    stream = client.send_request(
        [*head, (b"content-type", b"application/grpc"), (b"grpc-timeout", timeout)], end_stream=False
    )
    client.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        body = b""
        while True:
            connection.sendall(client.data_to_send())
            client.receive_data(connection.recv(65536))
            for event in client.events():
                if isinstance(event, ngh2.DataReceived):
                    body += event.data
                found = dict(getattr(event, "headers", ()))
                if b"grpc-status" in found:
                    return found[b"grpc-status"], body


@pytest.mark.parametrize("when", TIMES)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_by_grpc(plane: DataPlane, servable: Counting, method: str, when: str) -> None:
    server = GrpcServer(oip_grpc.services(plane), GrpcLimits(1 << 20, 1 << 20), Observer())
    listening = bind("127.0.0.1", 0, "gRPC")
    await server.start(listening)
    port = listening.getsockname()[1]
    status, body = await asyncio.to_thread(ask_grpc, port, method, TIMES[when])
    await server.drain(5, shared=False)
    assert (status, bool(body)) == ((b"0", True) if when == "in time" else (b"4", False))
    assert counted(plane, "OK") == (when == "in time")
    assert counted(plane, "DEADLINE_EXCEEDED") == (when != "in time")
    assert servable.runs == (0 if when == "late before it runs" else 1)


@pytest.mark.parametrize("when", ["in time", "too late"])
async def test_by_rest(plane: DataPlane, servable: Counting, when: str) -> None:
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    ).encode()
    head = b"POST /v2/models/doubling/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    async with serving(oip_rest.routes(plane), timeout_seconds=TIMES[when]) as port:
        answer = await tell(port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert statuses(answer) == ([200] if when == "in time" else [504])
    assert (b"no answer within 0.3 s" in answer) == (when == "too late")
    assert counted(plane, "OK") == (when == "in time")
    assert counted(plane, "DEADLINE_EXCEEDED") == (when != "in time")
    assert servable.runs == 1
