"""Which models `tandem-tf-serving` serves: by flags, by a file, or by a reload request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.server.errors import FailedPreconditionError, InvalidRequestError, ServerError, quote
from serving.server.repository.policies import ModelConfig, Policy, every, first_of, latest, specific
from serving.server.tfs.text_configs import ConfigError, read

log = logging.getLogger("tandem.server")

PLATFORM = "tensorflow"
TENSORFLOW_TYPE = 1
"""What the deprecated field model_type calls it."""

Available = Callable[[str, int], bool]
"""Whether a version of a model answers now."""


class ConfigSource:
    """The models to serve now. Where a file says so, it is read again every `poll_seconds`, 0 or less: never.

    A label may name a version that does not answer where it names no other yet and `unused_labels` is set, or where
    `any_label` is. `once`: the folders of a configuration are looked at only once.
    """

    def __init__(
        self,
        file: Path | None = None,
        poll_seconds: float = 0,
        *,
        unused_labels: bool = False,
        any_label: bool = False,
        once: bool = False,
    ) -> None:
        """Raises `ConfigError` where the file is none."""
        self.available: Available = lambda _model, _version: False
        """Set it to what the server's models say."""
        self._unused_labels = unused_labels
        self._any_label = any_label
        self._once = once
        self._configs: dict[str, ModelConfig] = {}
        self._file = file
        self._poll_seconds = poll_seconds
        self._looked = time.monotonic()
        self._followed = _parse(file) if file else None
        """What the file said."""
        try:
            self._accept(configs_of(self._followed) if file else {})
        except ServerError as error:
            raise ConfigError(f"--model_config_file={file}: {error}") from error

    @classmethod
    def of_one(cls, name: str, base_path: Path, *, once: bool = False) -> ConfigSource:
        """The latest version of one model."""
        source = cls(once=once)
        source._accept({name: ModelConfig(name, base_path.absolute(), latest())})
        return source

    def find(self) -> dict[str, ModelConfig]:
        """The models to serve; a file that cannot be followed changes nothing."""
        wait = self._poll_seconds
        if self._file is not None and 0 < wait <= time.monotonic() - self._looked:
            self._looked = time.monotonic()
            try:
                self._follow(_parse(self._file))
            except (ConfigError, ServerError) as error:
                log.error("%s; the models stay as they are", error)
        return self._configs

    def replace(self, config: Any) -> set[str]:
        """Serve what a ModelServerConfig says, and return which models are new.

        Raises `InvalidRequestError` or `FailedPreconditionError`; then everything stays as it is.
        """
        before = self._configs
        self._accept(configs_of(config))
        return self._configs.keys() - before.keys()

    def _follow(self, config: Any) -> None:
        if config == self._followed:
            return
        # As with a file that is just being written.
        if self._configs and config.WhichOneof("config") is None:
            expected = "expected a model_config_list (one without models: model_config_list { })"
            raise FailedPreconditionError(f"{self._file}: {expected}, got none")
        self._accept(configs_of(config))
        self._followed = config

    def _accept(self, configs: dict[str, ModelConfig]) -> None:
        for model in configs.values():
            old = self._configs[model.name].labels if model.name in self._configs else {}
            for label, version in model.labels.items():
                if not self._may_name(model.name, old, label, version):
                    raise FailedPreconditionError(
                        f"expected label {quote(label)} to name a version that is available, "
                        f"got version {version} of model {model.name}"
                    )
        if self._once:
            configs = {n: replace(model, policy=first_of(model.policy)) for n, model in configs.items()}
        self._configs = configs

    def _may_name(self, model: str, old: Mapping[str, int], label: str, version: int) -> bool:
        allowed = self._any_label or (self._unused_labels and old.get(label, version) == version)
        return allowed or self.available(model, version)


def configs_of(config: Any) -> dict[str, ModelConfig]:
    """The models of a ModelServerConfig. Raises `InvalidRequestError`."""
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
            raise InvalidRequestError(
                f"model {quote(model.name)}: expected an absolute base_path, got {quote(model.base_path)}"
            )
        platform = model.model_platform or (PLATFORM if model.model_type == TENSORFLOW_TYPE else "")
        if platform != PLATFORM:
            raise InvalidRequestError(
                f'model {quote(model.name)}: expected model_platform: "{PLATFORM}", got {quote(platform)}'
            )
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


def _parse(file: Path) -> Any:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    return read("model_config_file", file, ModelServerConfig)
