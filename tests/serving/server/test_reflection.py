"""A client that knows no message of ours learns them from the server, as grpcurl does, and calls with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from serving.server import protos
from serving.server.grpc import reflection

from .processes import ServerProcess

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(params=reflection.PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def ask(server: ServerProcess, package: str, questions: Sequence[dict[str, object]]) -> list[Any]:
    pb = protos.load(Path(reflection.__file__).with_name("reflection.proto"), package)
    opened: Any = grpc.insecure_channel(server.grpc)  # The stubs want serializers of one kind.
    with opened as channel:
        info = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            pb.ServerReflectionRequest.SerializeToString,
            pb.ServerReflectionResponse.FromString,
        )
        return list(info(iter([pb.ServerReflectionRequest(**question) for question in questions])))


def test_services_are_listed(oip: ServerProcess, package: str) -> None:
    (answer,) = ask(oip, package, [{"list_services": "*", "host": "h"}])
    names = [service.name for service in answer.list_services_response.service]
    services = [f"{each}.ServerReflection" for each in reflection.PACKAGES]
    assert names == ["grpc.health.v1.Health", *services, SERVICE]
    assert (answer.valid_host, answer.original_request.list_services) == ("h", "*")


def test_messages_can_be_made_of_what_is_told(oip: ServerProcess, package: str) -> None:
    symbols = (SERVICE, f"{SERVICE}.ModelMetadata", "inference.ModelInferRequest.InferInputTensor")
    answers = ask(oip, package, [{"file_containing_symbol": symbol} for symbol in symbols])
    (file,) = {bytes(answer.file_descriptor_response.file_descriptor_proto[0]) for answer in answers}
    name = FileDescriptorProto.FromString(file).name
    (by_name,) = ask(oip, package, [{"file_by_filename": name}])
    assert list(by_name.file_descriptor_response.file_descriptor_proto) == [file]
    pool = DescriptorPool()
    pool.AddSerializedFile(file)
    method = pool.FindServiceByName(SERVICE).methods_by_name["ModelMetadata"]
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    opened: Any = grpc.insecure_channel(oip.grpc)
    with opened as channel:
        path = f"/{SERVICE}/ModelMetadata"
        call = channel.unary_unary(path, asked.SerializeToString, answered.FromString)
        assert list(call(asked(name="fashion")).inputs[0].shape) == [-1, 28, 28, 1]


def test_what_is_not_known_does_not_end_the_stream(oip: ServerProcess, package: str) -> None:
    unknown: list[dict[str, object]] = [
        {"file_containing_symbol": "inference.None"},
        {"file_containing_symbol": f"{SERVICE}.None"},
        {"file_by_filename": "none.proto"},
        {"file_containing_extension": {"containing_type": SERVICE, "extension_number": 1}},
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {},
    ]
    *answers, last = ask(oip, package, [*unknown, {"list_services": ""}])
    assert [answer.error_response.error_code for answer in answers] == [
        grpc.StatusCode.NOT_FOUND.value[0]
    ] * 6
    assert "called 'inference.None'" in answers[0].error_response.error_message
    assert len(last.list_services_response.service) == 4
