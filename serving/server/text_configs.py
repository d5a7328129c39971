"""Configurations in protobuf's text form whose messages tensorflow-serving-api leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessages

MESSAGES: dict[str, dict[str, int | str]] = {
    "PrometheusConfig": {"enable": Field.TYPE_BOOL, "path": Field.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": ".tandem.PrometheusConfig"},
    "SSLConfig": {
        "server_key": Field.TYPE_STRING,
        "server_cert": Field.TYPE_STRING,
        "custom_ca": Field.TYPE_STRING,
        "client_verify": Field.TYPE_BOOL,
    },
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
    },
}
"""The fields of each message: the names and types of TensorFlow Serving's own."""


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


def read(flag: str, file: Path, message: Any) -> Any:  # noqa: ANN401 - messages are made on the spot
    """Fill a message from a file; fields that it does not know are passed over. Raises `ConfigError`."""
    try:
        known = message if not isinstance(message, str) else _made(message)
        return text_format.Parse(file.read_text(), known, allow_unknown_field=isinstance(message, str))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag} {file}: {error}") from error
    except text_format.ParseError as error:
        name = message if isinstance(message, str) else message.DESCRIPTOR.name
        raise ConfigError(
            f"Error parsing text-format tensorflow.serving.{name}: {error}. Invalid protobuf file: '{file}'"
        ) from error


def _made(name: str) -> Any:  # noqa: ANN401 - see read
    file = FileDescriptorProto(name="tandem/configs.proto", package="tandem", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    for message, fields in MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields.items(), 1):
            added = descriptor.field.add(name=field, number=number, label=Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = Field.TYPE_MESSAGE, kind
            else:
                added.type = kind  # type: ignore[assignment]
    wrappers = FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    return GetMessages([wrappers, file])[f"tandem.{name}"]()
