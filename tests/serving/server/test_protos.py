"""Our messages of the Open Inference Protocol, held against those that NVIDIA generated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from tritonclient.grpc import model_config_pb2, service_pb2

from .processes import ROOT

OURS = ROOT / "serving/server/oip/open_inference.proto"
KSERVE = {"properties"}
"""Fields that KServe has and NVIDIA has not."""


@pytest.fixture(scope="module")
def ours() -> FileDescriptor:
    """Our file as the server has it, in a pool of its own: one process cannot hold both generated modules."""
    code = (
        "import sys; from serving.server.oip import open_inference_pb2 as pb;"
        "sys.stdout.buffer.write(pb.DESCRIPTOR.serialized_pb)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    file: FileDescriptor = DescriptorPool().AddSerializedFile(made.stdout)
    return file


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
        method.name: (
            method.input_type.full_name,
            method.client_streaming,
            method.output_type.full_name,
            method.server_streaming,
        )
        for method in file.services_by_name["GRPCInferenceService"].methods
    }


def test_messages_travel_as_tritonclient_has_them(ours: FileDescriptor) -> None:
    theirs = {
        message.full_name: fields(message)
        for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
        for message in messages(file)
    }
    for message in messages(ours):
        if message.name == "PropertiesEntry":
            continue
        found, expected = fields(message), theirs[message.full_name]
        assert {n: f for n, f in found.items() if n not in KSERVE}.items() <= expected.items()
        if "Request" in message.full_name:
            assert found == expected, "whatever a client may say is read"
    datatypes = ours.enum_types_by_name["DataType"].values
    assert {value.name: value.number for value in datatypes} == dict(model_config_pb2.DataType.items())


def test_what_is_served_is_called_as_tritonclient_calls_it(ours: FileDescriptor) -> None:
    assert methods(ours).items() <= methods(service_pb2.DESCRIPTOR).items()
    left_out = methods(service_pb2.DESCRIPTOR).keys() - methods(ours).keys()
    assert {name.removeprefix("System").removeprefix("Cuda") for name in left_out} == {
        "SharedMemoryStatus",
        "SharedMemoryRegister",
        "SharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    }


def test_the_modules_are_those_that_their_files_make(tmp_path: Path) -> None:
    """`make protos` has been run since a .proto file changed."""
    files = [str(file.relative_to(ROOT)) for file in OURS.parents[1].glob("*/*.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", *files]
    subprocess.run(protoc, check=True, cwd=ROOT)
    made = list(tmp_path.rglob("*_pb2.py"))
    assert len(made) == len(files)
    for module in made:
        assert (ROOT / module.relative_to(tmp_path)).read_text() == module.read_text()
