"""The models that `tandem-tf-serving` serves, from its flags, a file, or a reload request."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server.errors import FailedPreconditionError, InvalidRequestError, ServerError, quote
from serving.server.repository.policies import ModelConfig, Policy, every, latest, specific
from serving.server.tfs.flags import ConfigError, read

log = logging.getLogger("tandem.server")


class ConfigSource:
    """The models to serve: one by name and path, or those of a file, which may be polled."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises `ConfigError`."""
        self.available: Callable[[str, int], bool] = lambda _model, _version: False
        """Return True if a version of a model is available; set after construction, from the server's models."""
        self._options = options
        self._file: Path | None = options.model_config_file
        self._configs: dict[str, ModelConfig] = {}
        self._looked = time.monotonic()
        self._followed = read("model_config_file", self._file, ModelServerConfig) if self._file else None
        """The content of the file."""
        if self._file is None:
            if options.model_base_path is None:
                raise ConfigError("expected --model_base_path or --model_config_file, got neither")
            name, path = options.model_name, options.model_base_path.absolute()
            self._accept({name: ModelConfig(name, path, latest())})
            return
        try:
            self._accept(configs_of(self._followed))
        except ServerError as error:
            raise ConfigError(f"--model_config_file={self._file}: {error}") from error

    def find(self) -> dict[str, ModelConfig]:
        """Return the models to serve. An invalid file is logged, and the models stay as they are."""
        wait = self._options.model_config_file_poll_wait_seconds
        if self._file is not None and 0 < wait <= time.monotonic() - self._looked:
            self._looked = time.monotonic()
            try:
                self._follow(read("model_config_file", self._file, ModelServerConfig))
            except (ConfigError, ServerError) as error:
                log.error("%s; the models stay as they are", error)
        return self._configs

    def replace(self, config: Any) -> set[str]:
        """Serve the models of a ModelServerConfig; returns the names of new ones.

        Raises `InvalidRequestError` or `FailedPreconditionError`, and then changes nothing.
        """
        before = self._configs
        self._accept(configs_of(config))
        return self._configs.keys() - before.keys()

    def _follow(self, config: Any) -> None:
        if config == self._followed:
            return
        # The file may be empty because it is being written.
        if self._configs and config.WhichOneof("config") is None:
            expected = "expected a model_config_list (one without models: model_config_list { })"
            raise FailedPreconditionError(f"{self._file}: {expected}, got none")
        self._accept(configs_of(config))
        self._followed = config

    def _accept(self, configs: dict[str, ModelConfig]) -> None:
        for model in configs.values():
            old = self._configs[model.name].labels if model.name in self._configs else {}
            for label, version in model.labels.items():
                may_wait = self._options.allow_version_labels_for_unavailable_models
                may_wait = may_wait and old.get(label, version) == version
                if not (may_wait or self.available(model.name, version)):
                    raise FailedPreconditionError(
                        f"expected label {quote(label)} to name a version that is available, "
                        f"got version {version} of model {model.name}"
                    )
        if not self._options.file_system_poll_wait_seconds:
            configs = {n: replace(model, policy=cache(model.policy)) for n, model in configs.items()}
        self._configs = configs


def configs_of(config: Any) -> dict[str, ModelConfig]:
    """Return the models of a ModelServerConfig. Raises `InvalidRequestError`."""
    if config.WhichOneof("config") == "custom_model_config":
        raise InvalidRequestError("expected a model_config_list, got a custom_model_config")
    configs: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if not model.name:
            raise InvalidRequestError("expected a name for each model of the configuration")
        if model.name in configs:
            raise InvalidRequestError(f"expected model {quote(model.name)} once, got it twice")
        path = Path(model.base_path)
        if not path.is_absolute():
            got = quote(model.base_path)
            raise InvalidRequestError(f"model {quote(model.name)}: expected an absolute base_path, got {got}")
        if model.model_platform != "tensorflow":
            expected, got = 'model_platform: "tensorflow"', quote(model.model_platform)
            raise InvalidRequestError(f"model {quote(model.name)}: expected {expected}, got {got}")
        configs[model.name] = ModelConfig(model.name, path, _policy(model), dict(model.version_labels))
    return configs


def _policy(model: Any) -> Policy:
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return every
        case "specific":
            if not policy.specific.versions:
                raise InvalidRequestError(f"model {quote(model.name)}: the policy specific names no version")
            return specific(*policy.specific.versions)
        case _:
            return latest(policy.latest.num_versions or 1)
