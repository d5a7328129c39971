"""The Open Inference Protocol over gRPC, as its clients see it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .artifacts import encode, images, logits
from .processes import ServerProcess, assert_matches


@pytest.fixture(scope="module")
def stub(oip: ServerProcess) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(oip.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(raw: bytes | None = None, **changes: object) -> pb.ModelInferRequest:
    fields: dict[str, object] = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1]} | changes
    asked = pb.ModelInferRequest(
        model_name="fashion", inputs=[pb.ModelInferRequest.InferInputTensor(**fields)]
    )
    if raw is not None:
        asked.raw_input_contents.append(raw)
    return asked


ONE = images(1)
RAW = ONE.tobytes()


def test_tritonclient_works(oip: ServerProcess) -> None:
    client = triton.InferenceServerClient(oip.grpc)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fashion")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata().name == "tandem"
    metadata = client.get_model_metadata("fashion")
    assert list(metadata.versions) == ["1"]
    assert list(metadata.inputs[0].shape) == [-1, 28, 28, 1]
    batch = images(4)
    given = triton.InferInput("image", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch)
    answer = client.infer("fashion", [given], outputs=[triton.InferRequestedOutput("logits")], request_id="i")
    np.testing.assert_allclose(answer.as_numpy("logits"), logits(batch), atol=1e-5)
    assert answer.as_numpy("probabilities") is None
    assert (answer.get_response().model_version, answer.get_response().id) == ("1", "i")
    client.close()


def test_typed_contents_work_as_well_as_raw_ones(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    asked = request()
    asked.inputs[0].contents.fp32_contents.extend(ONE.ravel().tolist())
    typed, raw = stub.ModelInfer(asked), stub.ModelInfer(request(RAW))
    assert typed.raw_output_contents == raw.raw_output_contents
    np.testing.assert_allclose(np.frombuffer(raw.raw_output_contents[0], "<f4"), logits(ONE)[0], atol=1e-5)


def test_encoded_pictures_are_decoded(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    asked = request(datatype="BYTES", shape=[1])
    asked.inputs[0].contents.bytes_contents.append(encode(ONE[0]))
    answer = stub.ModelInfer(asked)
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], "<f4"), logits(ONE)[0], atol=1e-5)


def test_several_pictures_are_decoded_from_raw_contents(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    batch = images(3)
    raw = b"".join(struct.pack("<I", len(each)) + each for each in map(encode, batch))
    for shape in ([3], [3, 1]):
        answer = stub.ModelInfer(request(raw, datatype="BYTES", shape=shape))
        found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(3, 10)
        np.testing.assert_allclose(found, logits(batch), atol=1e-5)


def test_a_long_name_does_not_break_the_error(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(request(RAW, name="é" * 100_000))
    call: Any = failure.value
    assert call.code().name == "INVALID_ARGUMENT"
    assert_matches("expected input image, got é", call.details())


def _extra_output() -> pb.ModelInferRequest:
    asked = request(RAW)
    asked.outputs.add().name = "labels"
    return asked


def _wrong_field() -> pb.ModelInferRequest:
    asked = request()
    asked.inputs[0].contents.int_contents.extend([1] * 784)
    return asked


def _not_a_picture() -> pb.ModelInferRequest:
    asked = request(datatype="BYTES", shape=[1])
    asked.inputs[0].contents.bytes_contents.append(b"hello")
    return asked


def _two_raw() -> pb.ModelInferRequest:
    asked = request(RAW)
    asked.raw_input_contents.append(RAW)
    return asked


def _of_model(name: str, version: str = "") -> pb.ModelInferRequest:
    asked = request(RAW)
    asked.model_name, asked.model_version = name, version
    return asked


BAD: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "shape": (request(RAW, shape=[1, 28, 28]), "INVALID_ARGUMENT", "expected shape"),
    "size": (request(RAW[:-4]), "INVALID_ARGUMENT", "expected 3136 bytes .* got 3132"),
    "huge shape": (request(RAW, shape=[2**40, 28, 28, 1]), "INVALID_ARGUMENT", "got 3136"),
    "shape past 2^63": (request(RAW, shape=[2**62, 28, 28, 1]), "INVALID_ARGUMENT", "at most .* elements"),
    "empty past 2^63": (request(b"", shape=[0, 2**62, 2**62, 1]), "INVALID_ARGUMENT", "at most .* elements"),
    "negative shape": (request(RAW, shape=[-1, 28, 28, 1]), "INVALID_ARGUMENT", "non-negative"),
    "dtype": (
        request(np.zeros((1, 28, 28, 1), np.int64).tobytes(), datatype="INT64"),
        "INVALID_ARGUMENT",
        "expected dtype float32, got int64",
    ),
    "datatype": (request(RAW, datatype="FLOAT"), "INVALID_ARGUMENT", "unknown datatype"),
    "NaN": (request((ONE * np.nan).tobytes()), "INVALID_ARGUMENT", "NaN or infinity"),
    "empty batch": (request(b"", shape=[0, 28, 28, 1]), "INVALID_ARGUMENT", "at least one row"),
    "other input": (request(RAW, name="picture"), "INVALID_ARGUMENT", "expected input image, got picture"),
    "no input": (pb.ModelInferRequest(model_name="fashion"), "INVALID_ARGUMENT", "got none"),
    "unknown output": (_extra_output(), "INVALID_ARGUMENT", "unknown output 'labels'"),
    "typed in the wrong field": (
        _wrong_field(),
        "INVALID_ARGUMENT",
        "expected fp32_contents .* got int_contents",
    ),
    "two raw tensors": (_two_raw(), "INVALID_ARGUMENT", "expected 1 raw_input_contents"),
    "no pictures in raw form": (
        request(b"\x05\0\0\0hello", datatype="BYTES", shape=[1]),
        "INVALID_ARGUMENT",
        "is no picture",
    ),
    "a picture too few": (
        request(b"\x05\0\0\0hello", datatype="BYTES", shape=[2]),
        "INVALID_ARGUMENT",
        "expected 2 elements",
    ),
    "no picture": (_not_a_picture(), "INVALID_ARGUMENT", "is no picture"),
    "too many rows": (
        request(np.zeros((65, 28, 28, 1), np.float32).tobytes(), shape=[65, 28, 28, 1]),
        "RESOURCE_EXHAUSTED",
        "at most 64",
    ),
    "too large": (request(b" " * 2_000_000), "RESOURCE_EXHAUSTED", "larger than max"),
    "unknown model": (_of_model("nope"), "NOT_FOUND", "'nope' is not served"),
    "unknown version": (_of_model("fashion", "9"), "NOT_FOUND", "version 9"),
    "no version": (_of_model("fashion", "latest"), "INVALID_ARGUMENT", "expected a version number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_with_what_was_expected(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, case: str
) -> None:
    asked, code, message = BAD[case]
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(asked)
    call: Any = failure.value
    assert call.code().name == code
    assert_matches(message, call.details())
    assert stub.ModelInfer(request(RAW)).model_version == "1"


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_the_health_service_says_serving(oip: ServerProcess, service: str) -> None:
    with grpc.insecure_channel(oip.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
