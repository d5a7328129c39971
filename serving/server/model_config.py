"""Which models `tandem-tf-serving` serves: by flags, by a file, or by a reload request."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessages

from serving.server.errors import InvalidRequestError
from serving.server.policies import ModelConfig, Policy, every, latest, specific

log = logging.getLogger("tandem.server")

METRICS_PATH = "/monitoring/prometheus/metrics"


class ConfigError(Exception):
    """A flag or a file that it names does not say what to serve."""


class ConfigSource:
    """The models to serve now. A file is read again every `poll_seconds` and replaces what was before."""

    def __init__(
        self, configs: dict[str, ModelConfig], file: Path | None = None, poll_seconds: float = 0
    ) -> None:
        self._configs = configs
        self._file = file
        self._poll_seconds = poll_seconds
        self._read = time.monotonic()
        self._text = file.read_text() if file else ""

    @classmethod
    def from_flags(cls, options: argparse.Namespace) -> ConfigSource:
        """Raises `ConfigError`."""
        file: Path | None = options.model_config_file
        if file is not None:
            return cls(read_config_file(file), file, options.model_config_file_poll_wait_seconds)
        if options.model_base_path is None:
            raise ConfigError("expected --model_base_path or --model_config_file")
        name: str = options.model_name
        return cls({name: ModelConfig(name, options.model_base_path, latest())})

    def find(self) -> dict[str, ModelConfig]:
        """The models to serve; a file that has become unreadable changes nothing."""
        if (
            self._file is not None
            and self._poll_seconds
            and time.monotonic() - self._read >= self._poll_seconds
        ):
            self._read = time.monotonic()
            try:
                text = self._file.read_text()
                if text != self._text:
                    self._configs = configs_of(_parse(text, self._file))
                    self._text = text
            except (OSError, ConfigError, InvalidRequestError) as error:
                log.error("%s; the models stay as they are", error)
        return self._configs

    def replace(self, config: Any) -> None:  # noqa: ANN401 - a ModelServerConfig, whose package has no types
        """Serve what a ModelServerConfig says. Raises `InvalidRequestError`."""
        self._configs = configs_of(config)


def read_config_file(file: Path) -> dict[str, ModelConfig]:
    """The models that a file with a ModelServerConfig names. Raises `ConfigError`."""
    try:
        return configs_of(_parse(file.read_text(), file))
    except (OSError, InvalidRequestError) as error:
        raise ConfigError(f"--model_config_file {file}: {error}") from error


def configs_of(config: Any) -> dict[str, ModelConfig]:  # noqa: ANN401 - see ConfigSource.replace
    """The models of a ModelServerConfig. Raises `InvalidRequestError`."""
    configs: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if not model.name or not model.base_path:
            raise InvalidRequestError("expected a name and a base_path for each model of the configuration")
        if model.name in configs:
            raise InvalidRequestError(f"model {model.name!r} is configured twice")
        if model.model_platform not in ("", "tensorflow"):
            raise InvalidRequestError(
                f"model {model.name!r}: expected platform tensorflow, got {model.model_platform!r}"
            )
        if model.version_labels:
            log.warning("model %s: version_labels are not served by Tandem's embedded server", model.name)
        configs[model.name] = ModelConfig(model.name, Path(model.base_path), _policy(model))
    return configs


def monitoring_path(file: Path | None) -> str:
    """Where the metrics lie: as a MonitoringConfig says, else the usual path. Raises `ConfigError`."""
    if file is None:
        return METRICS_PATH
    try:
        config = text_format.Parse(file.read_text(), _monitoring_config())
    except (OSError, text_format.ParseError) as error:
        raise ConfigError(f"--monitoring_config_file {file}: {error}") from error
    return str(config.prometheus_config.path) or METRICS_PATH


def _monitoring_config() -> Any:  # noqa: ANN401 - a message made on the spot
    """TensorFlow Serving's MonitoringConfig, which tensorflow-serving-api leaves out."""
    file = FileDescriptorProto(name="tandem/monitoring_config.proto", package="tandem", syntax="proto3")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=Field.TYPE_BOOL, label=Field.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config",
        number=1,
        type=Field.TYPE_MESSAGE,
        type_name=".tandem.PrometheusConfig",
        label=Field.LABEL_OPTIONAL,
    )
    return GetMessages([file])["tandem.MonitoringConfig"]()


def _parse(text: str, file: Path) -> Any:  # noqa: ANN401 - see ConfigSource.replace
    from tensorflow_serving.config.model_server_config_pb2 import (
        ModelServerConfig,
    )

    try:
        return text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"{file} is no ModelServerConfig: {error}") from error


def _policy(model: Any) -> Policy:  # noqa: ANN401 - see ConfigSource.replace
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return every
        case "specific":
            if not policy.specific.versions:
                raise InvalidRequestError(f"model {model.name!r}: the policy specific names no version")
            return specific(*policy.specific.versions)
        case _:
            return latest(policy.latest.num_versions or 1)
