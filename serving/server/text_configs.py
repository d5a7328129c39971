"""Configurations in protobuf's text form whose messages tensorflow-serving-api leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.server import protos

OWN = Path(__file__).with_name("configs.proto")


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


def read(flag: str, file: Path, message: Any) -> Any:  # noqa: ANN401 - messages are made on the spot
    """Fill a message from a file; fields that it does not know are passed over. Raises `ConfigError`."""
    try:
        known = message if not isinstance(message, str) else getattr(protos.load(OWN), message)()
        return text_format.Parse(file.read_text(), known, allow_unknown_field=isinstance(message, str))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag} {file}: {error}") from error
    except text_format.ParseError as error:
        name = message if isinstance(message, str) else message.DESCRIPTOR.name
        raise ConfigError(
            f"Error parsing text-format tensorflow.serving.{name}: {error}. Invalid protobuf file: '{file}'"
        ) from error
