"""What every target has: how it is launched, when it is ready, how it swaps versions, how it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from models.signature import Arrays, Signature
from serving import repository, targets
from serving.errors import TandemError
from serving.repository import Manifest, ManifestError
from serving.settings import Settings

SAMPLES = "samples"
"""Where a version's sample requests lie, beside the browser's artifact."""
PURPOSES = {"http": "REST", "grpc": "gRPC", "metrics": "metrics"}
"""What a user reads for one of `Container.ports`."""


class TargetError(TandemError):
    """A target did not do what was asked of it; the message says which one, and what it answered."""


@dataclass(frozen=True)
class Launch:
    """How a target's server is started as a local process. It stays in the foreground and logs to stderr."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A target's container, as all that is beside it knows it: `make generated` writes that from here."""

    image: str
    """The folder in docker/."""
    ports: Mapping[str, int]
    """`http`, what the gateway calls; `grpc` where there is one; `metrics` where they have a port of their own."""
    metrics: str = "/metrics"
    """The path of the metrics."""


@dataclass(frozen=True)
class Endpoint:
    """One protocol of a running target; `curl` is a line that works when pasted into a shell ("" for gRPC)."""

    protocol: str
    address: str
    curl: str = ""


class Client(Protocol):
    """Calls one endpoint by one protocol; reuses its connection."""

    def predict(self, inputs: Arrays) -> Arrays:
        """Every output of the signature by name. Raises `TargetError` with what the endpoint answered."""

    def close(self) -> None:
        """Close the connection."""


class Target(Protocol):
    """One runtime that Tandem ships to; docs/adding-a-target.md tells how another one is added."""

    name: str
    """One of `serving.targets.NAMES`."""
    source: str
    """The framework whose weights it serves unless `--source` says otherwise."""
    server: str
    """What answers around the runtime that a version names."""
    exporter: str
    """The module of `pipelines.exporting` that writes its artifact."""
    label: str
    """Its name on the page."""
    page_protocol: str
    """How the page calls it through the gateway, one of `endpoints.js`; "" where the page runs the model itself."""
    container: Container

    def launch(self, settings: Settings) -> Launch:
        """How the server is started as a local process, once it is configured."""

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        """Where it answers. `samples` is the folder of the sample requests that the curl lines send
        (`instances.json` in TF Serving's row form, `inference.json` for the Open Inference Protocol, `picture.png` of a
        model of pictures)."""

    def served_version(self, settings: Settings) -> int | None:
        """The version of `settings.model` that the running server answers with; None while it is not ready."""

    def clients(self, settings: Settings) -> dict[str, Client]:
        """A client for each protocol that predicts, by the protocol's name (`rest`, `grpc`, ...)."""

    def configure(self, settings: Settings) -> None:
        """Write the configuration that the server needs, on any platform, under `settings.run / self.name`."""
        return

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        """Why the running server will not serve `version`, in its own words; "" where it has not refused it.

        `log` are the last lines of what it said."""
        return ""

    def activate(self, settings: Settings, version: int) -> None:
        """Tell the running server to serve `version`, which is published; one that follows the pointer in the
        repository by itself is told nothing."""
        return

    def port(self, settings: Settings, purpose: str) -> int:
        """This machine's port for one of `container.ports`."""
        port: int = getattr(settings, port_setting(self.name, purpose))
        return port

    def ports(self, settings: Settings) -> dict[str, int]:
        """What the server will listen on, by purpose, so that a busy port is seen before the start."""
        return {PURPOSES[purpose]: self.port(settings, purpose) for purpose in self.container.ports}


def port_setting(name: str, purpose: str) -> str:
    """The field of `Settings` with this machine's port for one of `Container.ports`."""
    own = name.replace("-", "_")
    field = f"{own}_{'rest' if purpose == 'http' else purpose}_port"
    return field if hasattr(Settings, field) else f"{own}_port"


def served_manifest(settings: Settings, target: str) -> Manifest:
    """The manifest of the version that is published. Raises `TargetError` where there is none."""
    folder = repository.model_dir(settings.repository, target, settings.model)
    version = repository.served_version(folder)
    if version is None:
        raise TargetError(f"no version of {settings.model} is published; `make deploy` publishes the first")
    return repository.read_manifest(folder / str(version))


def served_signature(settings: Settings, target: str) -> Signature:
    """What the published version takes and gives."""
    return Signature.from_json(served_manifest(settings, target).signature)


def unreachable(settings: Settings, version: int) -> dict[str, str]:
    """The targets that have no artifact in a version, and why; none of those that have no manifest at all."""
    found = {}
    for name in targets.NAMES:
        folder = repository.version_dir(settings.repository, name, settings.model, version)
        with suppress(ManifestError):
            if why := repository.read_manifest(folder).unreachable:
                found[name] = why
    return found


def sample_folder(settings: Settings, version: int) -> Path:
    """The sample requests that travel with a version."""
    return repository.version_dir(settings.repository, "tfjs", settings.model, version) / SAMPLES
