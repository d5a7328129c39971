"""Configuration files in protobuf's text form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from serving.server.tfs.configs_pb2 import BatchingParameters

log = logging.getLogger("tandem.server")

AnyMessage = TypeVar("AnyMessage", bound=Message)

LEAST = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}
UNUSED = (
    "batch_timeout_micros",
    "num_batch_threads",
    "thread_pool_name",
    "allowed_batch_sizes",
    "pad_variable_length_inputs",
)
"""Batching parameters that do nothing here."""


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


def read(flag: str, file: Path, message: AnyMessage, lenient: bool = False) -> AnyMessage:
    """Fill a message from a file. `lenient`: fields that it does not know get a warning. Raises `ConfigError`."""
    try:
        text = file.read_text()
        try:
            return text_format.Parse(text, message)
        except text_format.ParseError as error:
            if not lenient:
                raise
            message.Clear()
            text_format.Parse(text, message, allow_unknown_field=True)
            log.warning("--%s=%s: ignored: %s", flag, file, error)
            return message
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag}={file}: {error}") from error
    except text_format.ParseError as error:
        name = message.DESCRIPTOR.name
        raise ConfigError(f"--{flag}={file}: expected a {name} in text form, got: {error}") from error


def read_batch_limits(file: Path, rows: int, queue: int) -> tuple[int, int]:
    """Rows in a run, and requests that wait, where a file of BatchingParameters names them; else as given.

    Raises `ConfigError`.
    """
    flag = "batching_parameters_file"
    parameters = read(flag, file, BatchingParameters(), lenient=True)
    given = {field.name for field, _ in parameters.ListFields()}
    for name, least in LEAST.items():
        if name in given and getattr(parameters, name).value < least:
            got = getattr(parameters, name).value
            raise ConfigError(f"--{flag}={file}: expected {name} of at least {least}, got {got}")
    if "max_batch_size" in given:
        rows = parameters.max_batch_size.value
        sizes = list(parameters.allowed_batch_sizes)
        if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != rows):
            raise ConfigError(
                f"--{flag}={file}: expected allowed_batch_sizes in increasing order, "
                f"the last one max_batch_size, {rows}; got {', '.join(map(str, sizes))}"
            )
    if "max_enqueued_batches" in given:
        queue = rows * parameters.max_enqueued_batches.value
    for name in UNUSED:
        if name in given:
            log.warning("batching parameter %s does nothing here: a run waits for nothing, unpadded", name)
    return rows, queue
