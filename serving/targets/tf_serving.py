"""TensorFlow Serving: the SavedModel behind TF Serving's own protocol.

Versions are selected by a model config file that the server polls, for the original `tensorflow_model_server` as for
Tandem's embedded one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from serving.repository import model_dir, served_version, write_atomically
from serving.settings import Settings
from serving.targets.base import Client, Container, Endpoint, Launch, Target, TargetError, served_signature
from serving.targets.http import HttpConnection, ask, endpoints

CONFIG = """model_config_list {{
  config {{
    name: "{model}"
    base_path: "{base_path}"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: {version} }} }}
  }}
}}
"""
CONTAINER_MODELS = Path("/models")
"""The folder of models in TensorFlow Serving's image and in ours."""
MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


class TensorFlowServing(Target):
    name = "tf-serving"
    source = "tensorflow"
    server = "our stand-in for TensorFlow Serving"
    exporter = "savedmodel"
    label = "TensorFlow Serving"
    page_protocol = "rows"
    container = Container("tf-serving", {"http": 8501, "grpc": 8500}, "/monitoring/prometheus/metrics")

    def configure(self, settings: Settings) -> None:
        """Raises `TargetError` if no version is published."""
        version = served_version(model_dir(settings.repository, self.name, settings.model))
        if version is None:
            raise TargetError(f"{self.name}: no version of {settings.model} is published")
        self.activate(settings, version)
        write_atomically(self._folder(settings) / "monitoring.config", MONITORING)

    def launch(self, settings: Settings) -> Launch:
        command = [
            str(Path(sys.executable).with_name("tandem-tf-serving")),
            f"--host={settings.host}",
            f"--port={settings.tf_serving_grpc_port}",
            f"--rest_api_port={settings.tf_serving_rest_port}",
            f"--model_config_file={self._config(settings)}",
            "--model_config_file_poll_wait_seconds=1",
            "--enable_batching",
            f"--monitoring_config_file={self._folder(settings) / 'monitoring.config'}",
        ]
        return Launch(command)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        predict = f"/v1/models/{settings.model}:predict"
        return endpoints(self, settings, predict, "-d", f"@{samples}/instances.json")

    def served_version(self, settings: Settings) -> int | None:
        states = self._versions(settings)
        return max((version for version, (state, _) in states.items() if state == "AVAILABLE"), default=None)

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        state, error = self._versions(settings).get(version, ("", ""))
        return error if state == "END" else ""

    def _versions(self, settings: Settings) -> dict[int, tuple[str, str]]:
        """Return the state and the error of each version that the server knows."""

        def read(http: HttpConnection) -> dict[int, tuple[str, str]]:
            return {
                int(own["version"]): (own["state"], str(own.get("status", {}).get("error_message", "")))
                for own in http.json("GET", f"/v1/models/{settings.model}")["model_version_status"]
            }

        return ask(self, settings, read) or {}

    def activate(self, settings: Settings, version: int) -> None:
        root = CONTAINER_MODELS if settings.platform == "docker" else settings.repository / self.name
        base_path = root / settings.model
        config = CONFIG.format(model=settings.model, base_path=base_path, version=version)
        write_atomically(self._config(settings), config)

    def clients(self, settings: Settings) -> dict[str, Client]:
        from serving.targets.tf_serving_client import GrpcClient, RestClient

        signature = served_signature(settings, self.name)
        return {
            "rest": RestClient(settings.host, settings.tf_serving_rest_port, settings.model, signature),
            "grpc": GrpcClient(settings.host, settings.tf_serving_grpc_port, settings.model),
        }

    def _folder(self, settings: Settings) -> Path:
        """One for containers, with their paths, and one for processes."""
        return settings.run / self.name / ("container" if settings.platform == "docker" else "process")

    def _config(self, settings: Settings) -> Path:
        return self._folder(settings) / "models.config"


TARGET = TensorFlowServing()
