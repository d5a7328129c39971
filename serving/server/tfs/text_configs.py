"""Configuration files in protobuf's text form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

log = logging.getLogger("tandem.server")

AnyMessage = TypeVar("AnyMessage", bound=Message)


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


def read(flag: str, file: Path, kind: type[AnyMessage], lenient: bool = False) -> AnyMessage:
    """The message that a file holds. `lenient`: fields that it does not know get a warning. Raises `ConfigError`."""
    try:
        text = file.read_text()
        try:
            return text_format.Parse(text, kind())
        except text_format.ParseError as error:
            if not lenient:
                raise
            message = text_format.Parse(text, kind(), allow_unknown_field=True)
            log.warning(
                "--%s=%s: only %s act here: %s", flag, file, ", ".join(kind.DESCRIPTOR.fields_by_name), error
            )
            return message
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag}={file}: {error}") from error
    except text_format.ParseError as error:
        name = kind.DESCRIPTOR.name
        raise ConfigError(f"--{flag}={file}: expected a {name} in text form, got: {error}") from error
