"""Which models `tandem-tf-serving` serves: by flags, by a file, or by a reload request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class LabelRules:
    """Which labels may name versions that do not answer now."""

    unused: bool = False
    """Those that name no other version yet: --allow_version_labels_for_unavailable_models."""
    every: bool = False
    """All: --force_allow_any_version_labels_for_unavailable_models."""


class ConfigSource:
    """The models to serve now. A file is read again every `poll_seconds` and replaces what was before.

    `once`: the folders of a configuration are looked at only once.
    """

    def __init__(
        self,
        configs: dict[str, ModelConfig],
        file: Path | None = None,
        poll_seconds: float = 0,
        rules: LabelRules | None = None,
        once: bool = False,
    ) -> None:
        self.available: Available = lambda _model, _version: False
        """Set it to what the server's models say."""
        self._rules = rules or LabelRules()
        self._once = once
        self._configs: dict[str, ModelConfig] = {}
        self._file = file
        self._poll_seconds = poll_seconds
        self._looked = time.monotonic()
        self._text = _text(file)
        try:
            self._accept(configs)
        except ServerError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def from_file(
        cls, file: Path, poll_seconds: float, rules: LabelRules, *, once: bool = False
    ) -> ConfigSource:
        """By a ModelServerConfig in text form. Raises `ConfigError`."""
        try:
            return cls(configs_of(_parse(file)), file, poll_seconds, rules, once)
        except InvalidRequestError as error:
            raise ConfigError(f"--model_config_file {file}: {error}") from error

    @classmethod
    def of_one(cls, name: str, base_path: Path, *, once: bool = False) -> ConfigSource:
        """The latest version of one model."""
        return cls({name: ModelConfig(name, base_path.absolute(), latest())}, once=once)

    def find(self) -> dict[str, ModelConfig]:
        """The models to serve; a file that cannot be followed changes nothing."""
        if self._file is None or self._poll_seconds <= 0:
            return self._configs
        if time.monotonic() - self._looked >= self._poll_seconds:
            self._looked = time.monotonic()
            text = _text(self._file)
            if text != self._text:
                try:
                    self._follow(_parse(self._file))
                    self._text = text
                except (ConfigError, ServerError) as error:
                    log.error("%s; the models stay as they are", error)
        return self._configs

    def replace(self, config: Any) -> set[str]:  # noqa: ANN401 - a ModelServerConfig, whose package has no types
        """Serve what a ModelServerConfig says, and return which models are new.

        Raises `InvalidRequestError` or `FailedPreconditionError`; then everything stays as it is.
        """
        before = self._configs
        self._accept(configs_of(config))
        return self._configs.keys() - before.keys()

    def _follow(self, config: Any) -> None:  # noqa: ANN401 - see above
        if (
            self._configs and config.WhichOneof("config") is None
        ):  # Such as a file that is just being written.
            raise FailedPreconditionError(
                f"{self._file}: expected a model_config_list, got none; that without models is model_config_list {{ }}"
            )
        self._accept(configs_of(config))

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
        if self._rules.every or (self._rules.unused and old.get(label, version) == version):
            return True
        return self.available(model, version)


def configs_of(config: Any) -> dict[str, ModelConfig]:  # noqa: ANN401 - see ConfigSource.replace
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
        platform = model.model_platform
        if model.model_type:
            given = [PLATFORM if model.model_type == TENSORFLOW_TYPE else "another model_type", platform]
            platform = " and ".join(filter(None, given))
        if platform != PLATFORM:
            raise InvalidRequestError(
                f'model {quote(model.name)}: expected model_platform: "{PLATFORM}", got {quote(platform)}'
            )
        configs[model.name] = ModelConfig(model.name, path, _policy(model), dict(model.version_labels))
    return configs


def _policy(model: Any) -> Policy:  # noqa: ANN401 - see ConfigSource.replace
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


def _parse(file: Path) -> Any:  # noqa: ANN401 - see ConfigSource.replace
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    return read("model_config_file", file, ModelServerConfig())


def _text(file: Path | None) -> str:
    try:
        return file.read_text() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        return str(error)
