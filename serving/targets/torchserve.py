"""The target `torchserve`: a .mar in TorchServe, which follows the pointer."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.settings import PREFIX, Settings
from serving.targets.base import Client, Container, Endpoint, Launch, Target, served_signature
from serving.targets.http import ask, endpoints
from serving.torchserve.config import state
from serving.torchserve.launch import STARTING, STOPPED

LAUNCH_SETTINGS = ("model", "artifacts", "host", "stop_seconds")


class TorchServe(Target):
    """PyTorch's own server: a Java frontend with one Python worker a version."""

    name = "torchserve"
    source = "pytorch"
    server = "TorchServe"
    exporter = "torchserve"
    label = "TorchServe"
    page_protocol = "torchserve"
    # Its container has the settings' defaults.
    container = Container(
        "torchserve",
        {
            "http": Settings.torchserve_rest_port,
            "grpc": Settings.torchserve_grpc_port,
            "metrics": Settings.torchserve_metrics_port,
        },
    )

    def configure(self, settings: Settings) -> None:
        """Make its folder; its content is written at the start."""
        state(settings).mkdir(parents=True, exist_ok=True)

    def launch(self, settings: Settings) -> Launch:
        environment = {
            PREFIX + field.name.upper(): str(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
            # A seed or a profile that changes must not restart the server.
            if field.name in LAUNCH_SETTINGS
            or (field.name.startswith("torchserve_") and field.name.endswith("_port"))
        }
        return Launch([sys.executable, "-m", "serving.torchserve.launch"], environment)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        body = ["-T", str(samples / "picture.png")]
        if not (samples / "picture.png").exists():
            body = ["-H", "Content-Type: application/json", "-T", str(samples / "instances.json")]
        return endpoints(self, settings, f"/predictions/{settings.model}", *body)

    def served_version(self, settings: Settings) -> int | None:
        """Ask the worker."""
        path, describe = f"/predictions/{settings.model}", {"describe": "True"}
        return ask(self, settings, lambda http: int(http.json("GET", path, headers=describe)["version"]))

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        """Search the log since the last start or stop."""
        lines = list(log)
        starts = [place for place, line in enumerate(lines) if STARTING in line or STOPPED in line]
        told = (f"version {version} of {settings.model} is refused", f"; version {version} is not served")
        since = lines[starts[-1] if starts else 0 :]
        return next((line.strip() for line in since if any(words in line for words in told)), "")

    def clients(self, settings: Settings) -> dict[str, Client]:
        """JSON and .npy over REST, .npy over gRPC."""
        from serving.targets.torchserve_client import GrpcClient, NpyClient, RestClient

        rest, grpc = self.port(settings, "http"), self.port(settings, "grpc")
        signature = served_signature(settings, self.name)
        return {
            "rest": RestClient(settings.host, rest, settings.model, signature),
            "rest-npy": NpyClient(settings.host, rest, settings.model, signature),
            "grpc": GrpcClient(settings.host, grpc, settings.model, signature),
        }


TARGET = TorchServe()
