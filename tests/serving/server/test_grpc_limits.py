"""What the gRPC server bears of its clients: deadlines, numbers, sizes, silence, and what is no gRPC at all."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import ngh2
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import images, write_onnx, write_slow_onnx
from .processes import ServerProcess, tandem_server

INFER = "/inference.GRPCInferenceService/ModelInfer"
HEADERS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"x"),
    (b":path", INFER.encode()),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """At most 4 calls and connections, which may be silent for a second."""
    root = tmp_path_factory.mktemp("limits")
    write_onnx(root / "repository" / "fashion", 1)
    write_slow_onnx(root / "repository" / "slow", 2000)
    limits = ("--max-connections=4", "--head-timeout-seconds=1", "--idle-timeout-seconds=1")
    server = tandem_server(
        "onnxruntime", root / "repository", root / "log", *limits, "--max-body-bytes=1048576"
    )
    server.wait_for("/v2/health/ready")
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


def request() -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 28, 28, 1])
    return pb.ModelInferRequest(
        model_name="fashion", inputs=[tensor], raw_input_contents=[images(1).tobytes()]
    )


def counted(server: ServerProcess, code: str) -> float:
    page = server.call("GET", "/metrics").body.decode()
    match = re.search(
        rf'^tandem_requests_total{{code="{code}",.*protocol="oip-grpc".*}} (\S+)$', page, re.MULTILINE
    )
    return float(match[1]) if match else 0.0


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def failure(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


class Raw:
    """A client that does what gRPC's own do not."""

    def __init__(self, server: ServerProcess) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.grpc_port), timeout=10)
        self.http2 = ngh2.Connection(ngh2.Role.CLIENT)
        self.http2.initiate_connection()

    def send(self) -> None:
        """Send what is to be sent, if the server still listens: what it said before it closed is to be read."""
        with suppress(ConnectionError):
            self._socket.sendall(self.http2.data_to_send())

    def until(self, kind: type[Any]) -> Any:
        """The next event of a kind."""
        while True:
            self.send()
            for event in self.http2.events():
                if isinstance(event, kind):
                    return event
            data = self._socket.recv(65536)
            assert data, "the server has closed the connection"
            self.http2.receive_data(data)

    def closed(self) -> bool:
        """Whether the server closes the connection, whatever it says before."""
        self.send()
        with suppress(ConnectionError):
            while self._socket.recv(65536):
                pass
        return True

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw(server: ServerProcess) -> Iterator[Raw]:
    client = Raw(server)
    try:
        yield client
    finally:
        client.close()


def answers(server: ServerProcess) -> None:
    """Assert that the next client is served."""
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        assert (
            rpc.GRPCInferenceServiceStub(channel).ModelInfer(request(), wait_for_ready=True).model_version
            == "1"
        )


def test_compressed_messages_are_read_and_bombs_are_not(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert stub.ModelInfer(request(), compression=compression).model_version == "1"
        bomb = request()
        bomb.raw_input_contents[0] = b"\0" * 30_000_000
        code, details = failure(lambda: stub.ModelInfer(bomb, compression=grpc.Compression.Gzip))
    assert (code, "larger than max" in details) == ("RESOURCE_EXHAUSTED", True)


def begin_long(client: Raw, *more: tuple[bytes, bytes]) -> int:
    """A call that takes many times as long as these tests wait; its stream."""
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
    one = np.ones(1, np.float32).tobytes()
    message = pb.ModelInferRequest(
        model_name="slow", inputs=[x], raw_input_contents=[one]
    ).SerializeToString()
    client.until(ngh2.SettingsReceived)
    stream: int = client.http2.send_request([*HEADERS, *more])
    client.http2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    client.send()
    return stream


def test_a_call_whose_deadline_passes_is_answered_and_counted_so(server: ServerProcess) -> None:
    before = counted(server, "DEADLINE_EXCEEDED")
    with raw(server) as client:
        begin_long(client, (b"grpc-timeout", b"12m"))
        trailers = dict(client.until(ngh2.ResponseReceived).headers)
    assert (trailers[b"grpc-status"], trailers[b"grpc-message"]) == (b"4", b"Deadline Exceeded")
    assert counted(server, "DEADLINE_EXCEEDED") == before + 1
    answers(server)


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_leaves_is_counted(server: ServerProcess, leave: str) -> None:
    before = counted(server, "CANCELLED")
    with raw(server) as client:
        stream = begin_long(client)
        # A connection that is reset ends where the server writes to it next, be the call read by then or not.
        client.http2.ping(b"begun?  ")
        client.until(ngh2.PingAcknowledged)
        if leave == "reset":
            client.http2.reset_stream(stream)
            client.send()
            until(lambda: counted(server, "CANCELLED") == before + 1)
    until(lambda: counted(server, "CANCELLED") == before + 1)
    answers(server)


def test_unknown_methods_and_broken_messages_are_refused(server: ServerProcess) -> None:
    opened: Any = grpc.insecure_channel(server.grpc)  # The stubs want serializers.
    with opened as channel:
        for path in ("/inference.GRPCInferenceService/None", "/none.None/ModelInfer"):
            code, details = failure(partial(channel.unary_unary(path), b""))
            assert (code, path in details) == ("UNIMPLEMENTED", True)
        assert failure(lambda: channel.unary_unary(INFER)(b"\xff\xff"))[0] == "INVALID_ARGUMENT"
        # Triton's protocol has more than we serve.
        shared = "/inference.GRPCInferenceService/SystemSharedMemoryStatus"
        assert failure(lambda: channel.unary_unary(shared)(b""))[0] == "UNIMPLEMENTED"
        assert (
            failure(lambda: channel.unary_unary(INFER)(b"", metadata=[("k", "v" * 17_000)]))[0]
            == "RESOURCE_EXHAUSTED"
        )
    answers(server)


def test_more_calls_than_allowed_are_refused_and_a_half_sent_one_ends(server: ServerProcess) -> None:
    with raw(server) as client:
        for _ in range(4):
            stream = client.http2.send_request(HEADERS)
            client.http2.send_data(stream, b"\0\0\0\1\0half")
        refused = client.http2.send_request(HEADERS, end_stream=True)
        answer = client.until(ngh2.ResponseReceived)
        assert (answer.stream_id, dict(answer.headers)[b"grpc-status"]) == (refused, b"8")
        late = client.until(ngh2.ResponseReceived)
        assert dict(late.headers)[b"grpc-status"] == b"4"
    answers(server)


def test_more_connections_than_allowed_are_closed(server: ServerProcess) -> None:
    clients = [Raw(server) for _ in range(4)]
    for client in clients:
        client.until(ngh2.SettingsReceived)
    with raw(server) as client:
        assert client.closed()
    for client in clients:
        client.close()
    answers(server)


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n"])
def test_what_is_no_http2_is_closed(server: ServerProcess, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=10) as connection:
        connection.sendall(words)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    answers(server)


def test_a_silent_client_is_asked_whether_it_lives_and_pings_are_not_without_end(
    server: ServerProcess,
) -> None:
    with raw(server) as client:
        assert client.until(ngh2.PingReceived).opaque_data == b"alive?  "
    with raw(server) as client:
        for number in range(101):
            client.http2.ping(number.to_bytes(8, "big"))
        assert client.until(ngh2.GoAwayReceived).error_code == ngh2.ErrorCode.ENHANCE_YOUR_CALM
    answers(server)


def test_what_is_no_grpc_is_told_so(server: ServerProcess) -> None:
    with raw(server) as client:
        client.http2.send_request([*HEADERS[:4], (b"content-type", b"text/html")], end_stream=True)
        assert dict(client.until(ngh2.ResponseReceived).headers)[b":status"] == b"415"
        client.http2.send_request([*HEADERS, (b"grpc-timeout", b"soon")], end_stream=True)
        assert dict(client.until(ngh2.ResponseReceived).headers)[b"grpc-status"] == b"3"


def test_a_stream_of_calls_is_answered_and_a_bad_one_does_not_end_it(server: ServerProcess) -> None:
    bad = request()
    bad.model_name = "none"
    with grpc.insecure_channel(server.grpc) as channel:
        found = list(
            rpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request(), bad, *[request()] * 50]))
        )
    assert len(found) == 52
    assert "none" in found[1].error_message
    assert all(answer.infer_response.model_version == "1" for answer in (found[0], *found[2:]))


def test_watchers_of_health_hear_first_that_the_server_stops(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    server.wait_for("/v2/health/ready")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert failure(lambda: stub.Check(health_pb2.HealthCheckRequest(service="none")))[0] == "NOT_FOUND"
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="none"))
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert failure(lambda: next(watch)) == ("UNAVAILABLE", "the server is stopping")
        unknown.cancel()
    assert server.process.wait(20) == 0
