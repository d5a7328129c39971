"""The Open Inference Protocol over gRPC, by messages that NVIDIA generated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .artifacts import images, logits
from .processes import ServerProcess, assert_matches

SERVICE = "inference.GRPCInferenceService"
Stub = service_pb2_grpc.GRPCInferenceServiceStub


@pytest.fixture(scope="module")
def stub(oip: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(oip.grpc) as channel:
        yield Stub(channel)


def request(*raw: bytes, **changes: Any) -> pb.ModelInferRequest:
    """A request of one input, its fields changed, with contents where `typed` is given."""
    fields: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1]} | changes
    version, typed = fields.pop("version", ""), fields.pop("typed", None)
    given = pb.ModelInferRequest.InferInputTensor(**fields)
    if typed is not None:
        given.contents.MergeFrom(pb.InferTensorContents(**typed))
    return pb.ModelInferRequest(
        model_name="fashion", model_version=version, inputs=[given], raw_input_contents=raw
    )


def asking(*names: str) -> pb.ModelInferRequest:
    asked = request(RAW)
    asked.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names)
    return asked


ONE = images(1)
RAW = ONE.tobytes()


def test_typed_contents_work_as_well_as_raw_ones(stub: Stub) -> None:
    typed = stub.ModelInfer(request(typed={"fp32_contents": ONE.ravel()}))
    raw = stub.ModelInfer(request(RAW))
    assert typed.raw_output_contents == raw.raw_output_contents
    np.testing.assert_allclose(np.frombuffer(raw.raw_output_contents[0], "<f4"), logits(ONE)[0], atol=1e-5)


INVALID = "INVALID_ARGUMENT"
BAD: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "unknown output": (asking("labels"), INVALID, "unknown output 'labels'"),
    "other field": (request(typed={"int_contents": [1] * 784}), INVALID, "fp32_contents .* got int_contents"),
    "raw and typed": (request(RAW, typed={"fp32_contents": [1.0]}), INVALID, "got both"),
    "two raw tensors": (request(RAW, RAW), INVALID, "expected 1 raw_input_contents"),
    "too many rows": (request(RAW * 65, shape=[65, 28, 28, 1]), "RESOURCE_EXHAUSTED", "at most 64"),
    "too large": (request(b" " * 2_000_000), "RESOURCE_EXHAUSTED", "larger than max"),
    "unknown model": (pb.ModelInferRequest(model_name="nope"), "NOT_FOUND", "'nope' is not served"),
    "no version": (request(RAW, version="latest"), INVALID, "expected a version number, got 'latest'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_with_what_was_expected(stub: Stub, case: str) -> None:
    asked, code, message = BAD[case]
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(asked)
    call: Any = failure.value
    assert call.code().name == code
    assert_matches(message, call.details())


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_loading_and_unloading_need_the_operator_s_leave(stub: Stub, method: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        getattr(stub, method)(getattr(pb, f"{method}Request")(model_name="fashion"))
    call: Any = failure.value
    assert call.code().name == "PERMISSION_DENIED"
    assert_matches("--repository-control", call.details())
    assert stub.ModelReady(pb.ModelReadyRequest(name="fashion")).ready


def test_a_client_learns_the_messages_from_the_server_as_grpcurl_does(oip: ServerProcess) -> None:
    opened: Any = grpc.insecure_channel(oip.grpc)  # The stubs want serializers of one kind.
    with opened as channel:
        told = ProtoReflectionDescriptorDatabase(channel)
        services = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE}
        assert set(told.get_services()) == services
        method = DescriptorPool(told).FindServiceByName(SERVICE).methods_by_name["ModelMetadata"]
        asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        path = f"/{SERVICE}/ModelMetadata"
        call = channel.unary_unary(path, asked.SerializeToString, answered.FromString)
        assert list(call(asked(name="fashion")).inputs[0].shape) == [-1, 28, 28, 1]
        for service in ("", SERVICE):
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            assert health.status == health_pb2.HealthCheckResponse.SERVING
