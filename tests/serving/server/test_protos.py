"""The .proto files that the server reads itself, held against the modules that others generated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from grpc_health.v1 import health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from serving.server import protos
from serving.server.grpc import health
from serving.server.protocols import oip_grpc


def described(field: FieldDescriptor) -> tuple[object, ...]:
    kind = field.message_type or field.enum_type
    choice = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, kind and kind.full_name, field.is_repeated, field.is_packed, choice


def fields(message: Descriptor) -> dict[str, tuple[object, ...]]:
    return {field.name: described(field) for field in message.fields}


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    def nested(message: Descriptor) -> Iterator[Descriptor]:
        yield message
        for inner in message.nested_types:
            yield from nested(inner)

    for message in file.message_types_by_name.values():
        yield from nested(message)


def methods(file: FileDescriptor) -> dict[str, tuple[object, ...]]:
    return {
        method.full_name: (
            method.input_type.full_name,
            method.client_streaming,
            method.output_type.full_name,
            method.server_streaming,
        )
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_the_open_inference_protocol_travels_as_tritonclient_has_it() -> None:
    theirs = {
        message.full_name: message
        for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
        for message in messages(file)
    }
    ours = list(messages(oip_grpc.pb.DESCRIPTOR))
    assert len(ours) > 40
    for message in ours:
        own, expected = fields(message), fields(theirs[message.full_name])
        assert own == {name: expected.get(name) for name in own}, message.full_name
        if "Request" in message.full_name:
            assert own == expected, "whatever a client may say is read"
        assert message.GetOptions().map_entry == theirs[message.full_name].GetOptions().map_entry
    datatypes = oip_grpc.pb.DESCRIPTOR.enum_types_by_name["DataType"]
    assert datatypes.values_by_name.keys() == model_config_pb2.DataType.DESCRIPTOR.values_by_name.keys()
    for value in datatypes.values:
        assert model_config_pb2.DataType.Value(value.name) == value.number
    served = methods(oip_grpc.pb.DESCRIPTOR)
    assert served == {name: methods(service_pb2.DESCRIPTOR)[name] for name in served}
    left_out = methods(service_pb2.DESCRIPTOR).keys() - served.keys()
    assert {name.rpartition(".")[2].removeprefix("System").removeprefix("Cuda") for name in left_out} == {
        "SharedMemoryStatus",
        "SharedMemoryRegister",
        "SharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    }


def test_health_travels_as_grpc_has_it() -> None:
    own, theirs = health.pb.DESCRIPTOR, health_pb2.DESCRIPTOR
    for name in ("HealthCheckRequest", "HealthCheckResponse"):
        assert fields(own.message_types_by_name[name]) == fields(theirs.message_types_by_name[name])
    states = health.pb.HealthCheckResponse.ServingStatus
    assert states.items() == health_pb2.HealthCheckResponse.ServingStatus.items()
    assert methods(own).items() <= methods(theirs).items()


def test_every_method_of_the_files_is_served() -> None:
    inference = oip_grpc.pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in inference.methods:
        assert hasattr(oip_grpc.OipGrpc, method.name), method.name
    assert all(hasattr(health.Health, name) for name in ("Check", "Watch"))


@pytest.mark.parametrize(
    "line", ["option java_package = 'x';", "message A { string b = 1; }", "required string b = 1;"]
)
def test_what_is_beyond_the_plain_language_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.proto"
    file.write_text(f'syntax = "proto3";\n\npackage a;\n\nmessage B {{\n  string c = 1;\n}}\n\n{line}\n')
    with pytest.raises(ValueError, match="plain statement of proto3") as refused:
        protos.load(file)
    assert repr(line) in str(refused.value)
