"""The target `torchserve`: a .mar in TorchServe, swapped through its management API."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from pathlib import Path

from serving.settings import PREFIX, Settings
from serving.targets.base import Client, Endpoint, Launch, TargetError
from serving.torchserve.config import staged, state
from serving.torchserve.drain import wait_for_queue
from serving.torchserve.launch import find_java, stage_version
from serving.torchserve.management import Management
from serving.torchserve.ready import is_ready

SETTLE_SECONDS = 0.5
"""How long a call may be on its way between asking for the default version and standing in its queue."""
LAUNCH_SETTINGS = ("model", "artifacts", "host", "stop_seconds")


class TorchServe:
    """PyTorch's own server: a Java frontend with one Python worker a version."""

    name = "torchserve"
    source = "pytorch"

    def ports(self, settings: Settings) -> dict[str, int]:
        return {
            "REST": settings.torchserve_rest_port,
            "management": settings.torchserve_management_port,
            "metrics": settings.torchserve_metrics_port,
            "gRPC": settings.torchserve_grpc_port,
            "gRPC management": settings.torchserve_grpc_management_port,
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
            if field.name in LAUNCH_SETTINGS or field.name.startswith("torchserve_")
        }
        return Launch([sys.executable, "-m", "serving.torchserve.launch"], environment)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        """Inference is open; management asks for the token in `key_file.json`."""
        base = f"http://{settings.host}"
        inference = f"{base}:{settings.torchserve_rest_port}/predictions/{settings.model}"
        management = f"{base}:{settings.torchserve_management_port}/models/{settings.model}"
        metrics = f"{base}:{settings.torchserve_metrics_port}/metrics"
        keys = shlex.quote(str(state(settings) / "key_file.json"))
        token = f"$({shlex.quote(sys.executable)} -c 'import json,sys; print(json.load(open(sys.argv[1]))"
        token += f'["management"]["key"])\' {keys})'
        return [
            Endpoint(
                "REST", inference, f"curl -s -T {shlex.quote(str(samples / 'picture.png'))} {inference}"
            ),
            Endpoint("gRPC", f"{settings.host}:{settings.torchserve_grpc_port}"),
            Endpoint("management", management, f'curl -s -H "Authorization: Bearer {token}" {management}'),
            Endpoint("metrics", metrics, f"curl -s {metrics}"),
        ]

    def served_version(self, settings: Settings) -> int | None:
        """The default version, once its worker has loaded the model."""
        try:
            description = Management(settings, timeout=3).describe(settings.model)
        except TargetError:
            return None
        return int(description["modelVersion"]) if description and is_ready(description) else None

    def activate(self, settings: Settings, version: int) -> None:
        """Register `version`, wait for its worker, make it the default, and unregister the others.

        Raises `TargetError` where the server refuses, or the worker is not ready in `settings.ready_seconds`;
        what was served is served on.
        """
        management = Management(settings, timeout=settings.ready_seconds)
        registered = management.versions(settings.model)
        if version not in registered:
            stage_version(settings, version)
            management.register(settings.model, staged(settings, version).name)
        try:
            _wait_until_ready(management, settings, version)
        except TargetError:
            if registered and version not in registered:
                management.unregister(settings.model, version)
            raise
        management.set_default(settings.model, version)
        others = [other for other in registered if other != version]
        if others:
            time.sleep(SETTLE_SECONDS)
        for other in others:
            # Unregistering kills the worker at once.
            wait_for_queue(settings, other)
            management.unregister(settings.model, other)
            staged(settings, other).unlink(missing_ok=True)

    def clients(self, settings: Settings) -> dict[str, Client]:
        """JSON and .npy over REST, .npy over gRPC."""
        from serving.torchserve.clients import GrpcClient, RestClient

        return {
            "rest": RestClient(settings),
            "rest-npy": RestClient(settings, npy=True),
            "grpc": GrpcClient(settings),
        }


def _wait_until_ready(management: Management, settings: Settings, version: int) -> None:
    end = time.monotonic() + settings.ready_seconds
    while time.monotonic() < end:
        description = management.describe(settings.model, version)
        if description and is_ready(description):
            return
        time.sleep(0.2)
    raise TargetError(
        f"torchserve: the worker of version {version} was not ready within {settings.ready_seconds} s; "
        f"see {settings.logs / 'torchserve.log'}"
    )


TARGET = TorchServe()
