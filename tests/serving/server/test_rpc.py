"""What the gRPC server bears of its clients: deadlines, numbers, sizes, and what is no gRPC at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from .artifacts import write_onnx, write_slow_onnx
from .load import infer_request, slow_request
from .processes import ServerProcess, running

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """At most 4 calls at once and messages of 1 MiB."""
    root = tmp_path_factory.mktemp("rpc")
    write_onnx(root / "repository" / "fashion", 1)
    write_slow_onnx(root / "repository" / "slow")
    limits = ("--max-connections=4", "--max-body-bytes=1048576")
    with running("onnxruntime", root, *limits) as server:
        yield server


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield rpc.GRPCInferenceServiceStub(channel)


def counted(server: ServerProcess, code: str) -> float:
    page = server.call("GET", "/metrics").body.decode()
    match = re.search(rf'^tandem_requests_total{{code="{code}",model="slow",.*}} (\S+)$', page, re.MULTILINE)
    return float(match[1]) if match else 0.0


def failure(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


def test_compressed_messages_are_read_and_large_ones_are_not(stub: Any) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert stub.ModelInfer(infer_request(), compression=compression).model_version == "1"
    large = infer_request()
    large.raw_input_contents[0] = b"\0" * 3_000_000
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        code, details = failure(partial(stub.ModelInfer, large, compression=compression))
        assert (code, "larger than max" in details) == ("RESOURCE_EXHAUSTED", True)


def test_a_call_whose_time_is_up_or_whose_client_leaves_is_counted_so(
    server: ServerProcess, stub: Any
) -> None:
    late, left = counted(server, "DEADLINE_EXCEEDED"), counted(server, "CANCELLED")
    stub.ServerLive(pb.ServerLiveRequest())  # Calls of a channel that is not connected yet have no order.
    running = stub.ModelInfer.future(slow_request(6000))
    stub.ServerLive(pb.ServerLiveRequest())
    queued = [stub.ModelInfer.future(slow_request(10**9)) for _ in range(2)]
    assert failure(lambda: stub.ModelInfer(slow_request(10**9), timeout=0.2))[0] == "DEADLINE_EXCEEDED"
    for call in queued:
        call.cancel()
    assert running.result().model_name == "slow"
    # None of those that nobody waits for is run: they would take weeks.
    assert stub.ModelInfer(slow_request(1), timeout=20).model_name == "slow"
    server.wait_for("/metrics", rf'code="CANCELLED",model="slow".* {left + 2}')
    assert counted(server, "DEADLINE_EXCEEDED") == late + 1


def test_more_calls_than_allowed_are_refused(server: ServerProcess, stub: Any) -> None:
    calls = [stub.ModelInfer.future(slow_request(800)) for _ in range(4)]
    server.wait_for("/metrics", r'tandem_queue_depth\{model="slow"\} 3')
    assert failure(lambda: stub.ModelInfer(infer_request()))[0] == "RESOURCE_EXHAUSTED"
    assert [call.result().model_name for call in calls] == ["slow"] * 4


def test_unknown_methods_and_broken_messages_are_refused(server: ServerProcess) -> None:
    opened: Any = grpc.insecure_channel(server.grpc)  # The stubs want serializers.
    with opened as channel:
        for path in ("/inference.GRPCInferenceService/None", "/none.None/ModelInfer"):
            assert failure(partial(channel.unary_unary(path), b""))[0] == "UNIMPLEMENTED"
        code, details = failure(partial(channel.unary_unary(INFER), b"\xff\xff"))
        assert (code, INFER in details) == ("INVALID_ARGUMENT", True)
        long = partial(channel.unary_unary(INFER), b"", metadata=[("k", "v" * 100_000)])
        assert failure(long)[0] == "RESOURCE_EXHAUSTED"
