"""What requests may hold in memory all together: what came small counts as what it has become."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import grpc
import ngh2
import numpy as np
import pytest
from grpc import aio
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import UnavailableError
from serving.server.grpc.limits import Limits as GrpcLimits
from serving.server.grpc.server import GrpcServer
from serving.server.grpc.service import Service
from serving.server.http import Request, Response, Route
from serving.server.http.bodies import HELD, Bodies
from serving.server.http.connection import Patience
from serving.server.http.incoming import Incoming
from serving.server.http.routes import Target
from serving.server.limits import Limits
from serving.server.loading import Loaded
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.observer import Observer
from serving.server.policies import ModelConfig, specific
from serving.server.protocols import oip_grpc
from serving.server.run_threads import RunThreads
from serving.server.running import bind
from serving.server.signature import DEFAULT_SIGNATURE, Signature, Tensors, TensorSpec

from .http.in_process import serving
from .test_pictures import png

MEBIBYTE = 1 << 20


async def test_bodies_of_http_count_while_they_are_inflated() -> None:
    bodies = Bodies(4 * MEBIBYTE)
    packed = gzip.compress(bytes(4 * MEBIBYTE))
    incoming = [Incoming(bodies, {b"content-encoding": b"gzip"}, Target()) for _ in range(HELD + 8)]
    for each in incoming:
        each.add(packed)

    async def inflate(each: Incoming) -> bytes | None:
        try:
            return await each.inflated()
        except UnavailableError:
            each.release()
            return None

    tracemalloc.start()
    found = await asyncio.gather(*map(inflate, incoming))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (HELD + 2) * bodies.limit
    assert 1 <= found.count(None) < len(found)
    for each in incoming:
        each.release()
    bodies.hold(HELD * bodies.limit)  # All of it was given back.


async def test_of_clients_of_http_that_take_no_answer_those_that_wait_longest_are_closed() -> None:
    async def much(_request: Request) -> Response:
        return Response(bytes(8 * MEBIBYTE), "text/plain")

    patience = Patience(unsent_bytes=20 * MEBIBYTE)
    async with serving([Route("GET", "/", much)], patience=patience) as port:
        clients = []
        for _ in range(6):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            await asyncio.to_thread(client.connect, ("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert await asyncio.to_thread(client.recv, 1)
            clients.append(client)
        sizes = [await asyncio.to_thread(received, client) for client in clients]
        assert [size > 8 * MEBIBYTE for size in sizes[-2:]] == [True, True]
        assert sum(size < 8 * MEBIBYTE for size in sizes) >= 3


def received(client: socket.socket) -> int:
    """How much comes until the connection ends."""
    size = 0
    with client, contextlib.suppress(ConnectionError):
        while data := client.recv(MEBIBYTE):
            size += len(data)
    return size


class Servicer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.at_work = asyncio.Event()

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        await self.go_on.wait()
        return oip_grpc.pb.ModelInferResponse(id=request.id)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            self.at_work.set()
            await self.go_on.wait()
            yield oip_grpc.pb.ModelStreamInferResponse(infer_response={"id": request.id})


@pytest.fixture
async def grpc_server() -> AsyncIterator[SimpleNamespace]:
    """Messages of a mebibyte, of which four may be held."""
    servicer = Servicer()
    service = Service(oip_grpc.pb.DESCRIPTOR.services_by_name["GRPCInferenceService"], servicer)
    server = GrpcServer([service], GrpcLimits(MEBIBYTE, MEBIBYTE, held_bytes=4 * MEBIBYTE), Observer())
    listening = bind("127.0.0.1", 0, "gRPC")
    await server.start(listening)
    async with aio.insecure_channel(f"127.0.0.1:{listening.getsockname()[1]}") as channel:
        yield SimpleNamespace(
            server=server,
            servicer=servicer,
            stub=rpc.GRPCInferenceServiceStub(channel),
            port=listening.getsockname()[1],
        )
    await server.drain(5, shared=False)


def zeros() -> pb.ModelInferRequest:
    return pb.ModelInferRequest(raw_input_contents=[bytes(900_000)])


async def test_messages_of_grpc_count_as_inflated(grpc_server: SimpleNamespace) -> None:
    async def ask() -> grpc.StatusCode:
        try:
            await grpc_server.stub.ModelInfer(zeros(), compression=grpc.Compression.Gzip)
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    asked = [asyncio.create_task(ask()) for _ in range(8)]
    refused, _ = await asyncio.wait(asked, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    while len(refused) < 4:
        refused, _ = await asyncio.wait(asked, timeout=0.05)
    grpc_server.servicer.go_on.set()
    codes = await asyncio.gather(*asked)
    assert (codes.count(grpc.StatusCode.UNAVAILABLE), codes.count(grpc.StatusCode.OK)) == (4, 4)
    assert grpc_server.server.held == 0


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_of_a_stream_counts_until_it_is_answered(
    grpc_server: SimpleNamespace, compression: grpc.Compression
) -> None:
    call = grpc_server.stub.ModelStreamInfer(compression=compression)
    await call.write(zeros())
    await asyncio.wait_for(grpc_server.servicer.at_work.wait(), 20)
    assert grpc_server.server.held >= 900_000
    grpc_server.servicer.go_on.set()
    await call.read()
    for _ in range(20):
        await call.write(pb.ModelInferRequest(id="x"))
        assert (await call.read()).infer_response.id == "x"
    assert grpc_server.server.held == 0
    await call.done_writing()


async def test_answers_of_grpc_that_nobody_takes_leave_no_room_for_more(
    grpc_server: SimpleNamespace,
) -> None:
    """A client that never lets the server send: its calls are answered, and it has room for none of that."""
    grpc_server.servicer.go_on.set()
    connection = Lazy(grpc_server.port, "x" * 900_000)
    await connection.ask(8)
    held = [each.unsent for each in grpc_server.server.connections]
    assert 3_000_000 < sum(held) < 4 * MEBIBYTE
    with pytest.raises(aio.AioRpcError, match="answers that wait for their clients fill") as refused:
        await grpc_server.stub.ModelInfer(pb.ModelInferRequest(id="x" * 900_000))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    connection.close()
    while grpc_server.server.connections and sum(each.unsent for each in grpc_server.server.connections):
        await asyncio.sleep(0.01)
    assert (await grpc_server.stub.ModelInfer(pb.ModelInferRequest(id="x" * 900_000))).id


class Lazy:
    """A client of gRPC that takes no answers: its window is shut."""

    def __init__(self, port: int, identity: str) -> None:
        self._port = port
        self._message = pb.ModelInferRequest(id=identity).SerializeToString()
        self._http2 = ngh2.Connection(ngh2.Role.CLIENT)
        self._http2.initiate_connection({int(ngh2.Setting.INITIAL_WINDOW_SIZE): 0})

    async def ask(self, calls: int) -> None:
        """Make calls, and wait until the server has seen to them."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"))
        path = (b":path", b"/inference.GRPCInferenceService/ModelInfer")
        message = b"\0" + len(self._message).to_bytes(4, "big") + self._message
        for _ in range(calls):
            stream = self._http2.send_request([*head, path, (b"content-type", b"application/grpc")])
            self._http2.send_data(stream, message, end_stream=True)
        answered = 0
        while answered < calls:
            self._writer.write(self._http2.data_to_send())
            self._http2.receive_data(await asyncio.wait_for(reader.read(1 << 20), 20))
            answered += sum(isinstance(event, ngh2.ResponseReceived) for event in self._http2.events())

    def close(self) -> None:
        self._writer.transport.abort()


class Pixels:
    """Gives back the first pixel of each picture, when it may."""

    concurrent = False
    signatures: ClassVar = {
        DEFAULT_SIGNATURE: Signature(
            (TensorSpec("image", "float32", (-1, -1, -1, 1)),), (TensorSpec("y", "float32", (-1,)),)
        )
    }

    def run(self, _signature: str, inputs: Tensors, _outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["image"][:, 0, 0, 0]}

    def close(self) -> None:
        pass


async def test_pictures_count_as_decoded_and_one_is_always_taken(tmp_path: Path) -> None:
    config = ModelConfig("pixels", tmp_path, specific(1))
    metrics = Metrics()
    with RunThreads(1) as threads, ThreadPoolExecutor(4) as decoders:
        loaded = Loaded(Pixels(), 1.0)
        models = Models(lambda: {"pixels": config}, lambda _: loaded, threads, metrics, Limits(64, 64))
        plane = DataPlane(models, metrics, decoders, "onnxruntime", picture_bytes=1_000_000)
        await models.refresh()
        encoded = np.array([png(Image.new("L", (600, 600), 51))], object)  # 1.44 MB as float32
        version = models.model("pixels").version()

        async def ask() -> float:
            return float((await plane.infer(version, Call({"image": encoded})))["y"][0])

        for _ in range(2):
            assert await ask() == pytest.approx(0.2)
        found = await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
        refused = [each for each in found if isinstance(each, UnavailableError)]
        assert 1 <= len(refused) < 8
        assert "decoded pictures fill 1000000 bytes" in str(refused[0])
        assert await ask() == pytest.approx(0.2)
        await models.close()
