"""The target `torchserve`: a .mar in TorchServe, which follows the pointer by itself."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.settings import PREFIX, Settings
from serving.targets.base import Client, Container, Endpoint, Launch, TargetError
from serving.targets.http import HttpConnection
from serving.torchserve.config import state
from serving.torchserve.launch import STARTING, find_java

LAUNCH_SETTINGS = ("model", "artifacts", "host", "stop_seconds")


class TorchServe:
    """PyTorch's own server: a Java frontend with one Python worker a version."""

    name = "torchserve"
    source = "pytorch"
    server = "TorchServe"
    exporter = "torchserve"
    label = "TorchServe"
    page_protocol = "torchserve"
    # Its container reads the same settings, at their defaults.
    container = Container(
        "torchserve",
        {
            "http": Settings.torchserve_rest_port,
            "grpc": Settings.torchserve_grpc_port,
            "metrics": Settings.torchserve_metrics_port,
        },
    )

    def ports(self, settings: Settings) -> dict[str, int]:
        return {
            "REST": settings.torchserve_rest_port,
            "metrics": settings.torchserve_metrics_port,
            "gRPC": settings.torchserve_grpc_port,
        }

    def configure(self, settings: Settings) -> None:
        """Its folder; what lies in it is written at the start, for the version that is published then."""
        state(settings).mkdir(parents=True, exist_ok=True)

    def launch(self, settings: Settings) -> Launch:
        """Raises `TargetError` where there is no Java 17 or newer."""
        find_java()
        environment = {
            PREFIX + field.name.upper(): str(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
            # A seed or a profile that changes must not restart the server.
            if field.name in LAUNCH_SETTINGS
            or (field.name.startswith("torchserve_") and field.name.endswith("_port"))
        }
        return Launch([sys.executable, "-m", "serving.torchserve.launch"], environment)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        base = f"http://{settings.host}"
        inference = f"{base}:{settings.torchserve_rest_port}/predictions/{settings.model}"
        metrics = f"{base}:{settings.torchserve_metrics_port}/metrics"
        sample = next(
            (samples / file for file in ("picture.png", "instances.json") if (samples / file).exists()),
            samples / "instances.json",
        )
        form = "" if sample.suffix == ".png" else " -H 'Content-Type: application/json'"
        return [
            Endpoint("REST", inference, f"curl -s{form} -T {shlex.quote(str(sample))} {inference}"),
            Endpoint("gRPC", f"{settings.host}:{settings.torchserve_grpc_port}"),
            Endpoint("metrics", metrics, f"curl -s {metrics}"),
        ]

    def served_version(self, settings: Settings) -> int | None:
        """The version that the worker says it answers with."""
        connection = HttpConnection(settings.host, settings.torchserve_rest_port, timeout=5)
        try:
            described = connection.json("GET", f"/predictions/{settings.model}", headers={"describe": "True"})
            return int(described["version"])
        except TargetError:
            return None
        finally:
            connection.close()

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        """What it has said since its last start."""
        lines = list(log)
        starts = [place for place, line in enumerate(lines) if STARTING in line]
        told = (f"version {version} of {settings.model} is refused", f"; version {version} is not served")
        since = lines[starts[-1] if starts else 0 :]
        return next((line.strip() for line in since if any(words in line for words in told)), "")

    def activate(self, settings: Settings, version: int) -> None:
        """The server follows the pointer by itself."""

    def clients(self, settings: Settings) -> dict[str, Client]:
        """JSON and .npy over REST, .npy over gRPC."""
        from serving.torchserve.clients import GrpcClient, RestClient

        return {
            "rest": RestClient(settings),
            "rest-npy": RestClient(settings, npy=True),
            "grpc": GrpcClient(settings),
        }


TARGET = TorchServe()
