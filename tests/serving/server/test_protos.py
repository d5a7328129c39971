"""Our messages of the Open Inference Protocol, held against those that NVIDIA generated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

from .processes import ROOT

# One process cannot hold both generated modules.
CODE = """import sys
from serving.server.oip import open_inference_pb2
sys.stdout.buffer.write(open_inference_pb2.DESCRIPTOR.serialized_pb)"""
OURS = FileDescriptorProto.FromString(
    subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, cwd=ROOT).stdout
)
SERVICE, CONFIG = (
    FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    for module in (service_pb2, model_config_pb2)
)


def fields(messages: Iterable[DescriptorProto], path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Each message's fields as text, by name."""
    for message in messages:
        yield path + message.name, {field.name: str(field) for field in message.field}
        yield from fields(message.nested_type, f"{path}{message.name}.")


def test_messages_travel_as_tritonclient_has_them() -> None:
    theirs = dict(fields([*SERVICE.message_type, *CONFIG.message_type]))
    for name, found in fields(OURS.message_type):
        found.pop("properties", None)  # KServe's, and its entries.
        if name.endswith("PropertiesEntry"):
            continue
        expected = theirs[name]
        assert found.items() <= expected.items()
        if "Request" in name:
            assert found == expected, "whatever a client may say is read"
    datatypes = OURS.enum_type[0]
    assert {value.name: value.number for value in datatypes.value} == dict(model_config_pb2.DataType.items())


def test_the_modules_are_those_that_their_files_make(tmp_path: Path) -> None:
    """`make protos` has been run since a .proto file changed."""
    files = [str(file.relative_to(ROOT)) for file in (ROOT / "serving").rglob("*.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", *files]
    subprocess.run(protoc, check=True, cwd=ROOT)
    made = list(tmp_path.rglob("*_pb2.py"))
    assert len(made) == len(files)
    for module in made:
        assert (ROOT / module.relative_to(tmp_path)).read_text() == module.read_text()
