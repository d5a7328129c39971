"""Configurations in protobuf's text form whose messages tensorflow-serving-api leaves out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.server import protos

log = logging.getLogger("tandem.server")

OWN = Path(__file__).with_name("configs.proto")


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


def read(flag: str, file: Path, message: Any, lenient: bool = False) -> Any:  # noqa: ANN401 - made on the spot
    """Fill a message from a file, and `lenient` only warn of fields that it does not know. Raises `ConfigError`."""
    try:
        text = file.read_text()
        known = getattr(protos.load(OWN), message)() if isinstance(message, str) else message
        try:
            return text_format.Parse(text, known)
        except text_format.ParseError as error:
            if not lenient:
                raise
            known.Clear()
            text_format.Parse(text, known, allow_unknown_field=True)
            log.warning("--%s %s: what is not known here does nothing: %s", flag, file, error)
            return known
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag} {file}: {error}") from error
    except text_format.ParseError as error:
        name = message if isinstance(message, str) else message.DESCRIPTOR.name
        raise ConfigError(
            f"Error parsing text-format tensorflow.serving.{name}: {error}. Invalid protobuf file: '{file}'"
        ) from error
