"""Messages and services from .proto files, without modules that were generated from them.

Those of tritonclient come with a client and grpcio, 10 MB in a server that uses neither. And what is read here has a
pool of its own: a process may hold it beside packages whose messages go by the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = re.compile(r"package ([\w.]+);")
BLOCK = re.compile(r"(message|enum|oneof|service) (\w+) \{")
FIELD = re.compile(r"(repeated )?(\w+) (\w+) = (\d+);")
MAP = re.compile(r"map<(\w+), (\w+)> (\w+) = (\d+);")
VALUE = re.compile(r"(\w+) = (\d+);")
METHOD = re.compile(r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);")
END = "}"
SCALARS = ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")

Lines = Iterator[str]


def load(path: Path, package: str = "") -> Any:  # noqa: ANN401 - as a generated module: messages by name, and DESCRIPTOR
    """What a module generated from the file would hold; in `package`, if that is given, instead of its own.

    Of proto3 it reads what has neither options nor imports, one statement on a line, blocks opened and closed on lines
    of their own. Raises `ValueError` naming the line that is none of it.
    """
    file = FileDescriptorProto(name=f"{package}.proto" if package else path.name, syntax="proto3")
    stripped = (line.partition("//")[0].strip() for line in path.read_text().splitlines())
    lines = (line for line in stripped if line)
    for line in lines:
        if found := PACKAGE.fullmatch(line):
            file.package = package or found[1]
        elif line != 'syntax = "proto3";':
            _block(file, _match(BLOCK, line), lines)
    pool = DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindFileByName(file.name)
    messages = {name: GetMessageClass(each) for name, each in descriptor.message_types_by_name.items()}
    return SimpleNamespace(DESCRIPTOR=descriptor, **messages)


def _block(parent: Any, opened: re.Match[str], lines: Lines) -> None:  # noqa: ANN401 - a file or a message
    kind, name = opened.groups()
    inner = iter(lines.__next__, END)
    if kind == "message":
        nested = parent.message_type if isinstance(parent, FileDescriptorProto) else parent.nested_type
        _message(nested.add(name=name), lines)
    elif kind == "enum":
        values = parent.enum_type.add(name=name).value
        for found in (_match(VALUE, line) for line in inner):
            values.add(name=found[1], number=int(found[2]))
    elif kind == "oneof":
        parent.oneof_decl.add(name=name)
        for line in inner:
            _field(parent, line).oneof_index = len(parent.oneof_decl) - 1
    else:
        methods = parent.service.add(name=name).method
        for found in (_match(METHOD, line) for line in inner):
            method = methods.add(name=found[1], input_type=found[3], output_type=found[5])
            method.client_streaming, method.server_streaming = bool(found[2]), bool(found[4])


def _message(message: DescriptorProto, lines: Lines) -> None:
    for line in iter(lines.__next__, END):
        if opened := BLOCK.fullmatch(line):
            _block(message, opened, lines)
        elif found := MAP.fullmatch(line):
            key, value, name, number = found.groups()
            entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            _field(entry, f"{key} key = 1;")
            _field(entry, f"{value} value = 2;")
            _field(message, f"repeated {entry.name} {name} = {number};")
        else:
            _field(message, line)


def _field(message: DescriptorProto, line: str) -> Field:
    repeated, kind, name, number = _match(FIELD, line).groups()
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    if kind in SCALARS:
        field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type_name = kind
    return field


def _match(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    found = pattern.fullmatch(line)
    if found is None:
        raise ValueError(f"expected a plain statement of proto3, as {pattern.pattern}; got {line!r}")
    return found
