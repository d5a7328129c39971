"""The interface of a target: launch, readiness, swap of versions, clients."""

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
"""The folder of a version's sample requests, beside the artifact of tfjs."""
ORIGINAL = "tensorflow/"
"""The prefix of TensorFlow Serving's own image."""
PURPOSES = {"http": "REST", "grpc": "gRPC", "metrics": "metrics"}
"""The names of `Container.ports` for users."""


class TargetError(TandemError):
    """A target failed; the message has its name and response."""


@dataclass(frozen=True)
class Launch:
    """The command of a target's server as a local process, in the foreground, with its log on stderr."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A target's container; `make generated` writes it into other files."""

    image: str
    """The folder in docker/."""
    ports: Mapping[str, int]
    """`http`, which the gateway calls; optionally `grpc`, and `metrics` if they have their own port."""
    metrics: str = "/metrics"
    """The path of the metrics."""


@dataclass(frozen=True)
class Endpoint:
    """One protocol of a running target; `curl` is a line to paste into a shell ("" for gRPC)."""

    protocol: str
    address: str
    curl: str = ""


class Client(Protocol):
    """A client of one protocol, over one connection."""

    def predict(self, inputs: Arrays) -> Arrays:
        """Return all outputs by name. Raises `TargetError` with the response."""

    def close(self) -> None: ...


class Target(Protocol):
    """A runtime that Tandem ships to; docs/adding-a-target.md describes how to add one."""

    name: str
    """One of `serving.targets.NAMES`."""
    source: str
    """The framework of its weights unless `--source` names another."""
    server: str
    """The server around the runtime of a version."""
    exporter: str
    """The module of `pipelines.exporting` that writes its artifact."""
    label: str
    """Its name on the page."""
    page_protocol: str
    """The page's protocol through the gateway, one of `endpoints.js`; "" if the page runs the model."""
    container: Container

    def launch(self, settings: Settings) -> Launch:
        """Return the command of the server as a local process, after `configure`."""

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        """Return the endpoints. `samples` is the folder of the sample requests for the curl lines: `instances.json` in
        TF Serving's row form, `inference.json` for the Open Inference Protocol, `picture.png` for pictures."""

    def served_version(self, settings: Settings) -> int | None:
        """Return the version of `settings.model` that the running server serves; None if it is not ready."""

    def clients(self, settings: Settings) -> dict[str, Client]:
        """Return a client for each protocol, by its name (`rest`, `grpc`, ...)."""

    def configure(self, settings: Settings) -> None:
        """Write the server's configuration under `settings.run / self.name`."""
        return

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        """Return the running server's reason for refusing `version`; "" if it has not. `log` are its last lines."""
        return ""

    def activate(self, settings: Settings, version: int) -> None:
        """Make the running server serve the published `version`; a server that follows the pointer needs nothing."""
        return

    def port(self, settings: Settings, purpose: str) -> int:
        """Return this machine's port for one of `container.ports`."""
        port: int = getattr(settings, port_setting(self.name, purpose))
        return port

    def ports(self, settings: Settings) -> dict[str, int]:
        """Return the ports of the server by purpose, to be checked before the start."""
        return {PURPOSES[purpose]: self.port(settings, purpose) for purpose in self.container.ports}


def port_setting(name: str, purpose: str) -> str:
    """Return the field of `Settings` with the port for one of `Container.ports`."""
    own = name.replace("-", "_")
    field = f"{own}_{'rest' if purpose == 'http' else purpose}_port"
    return field if hasattr(Settings, field) else f"{own}_port"


def served_manifest(settings: Settings, target: str) -> Manifest:
    """Return the manifest of the published version. Raises `TargetError` if there is none."""
    folder = repository.model_dir(settings.repository, target, settings.model)
    version = repository.served_version(folder)
    if version is None:
        raise TargetError(f"no version of {settings.model} is published; `make deploy` publishes the first")
    return repository.read_manifest(folder / str(version))


def served_signature(settings: Settings, target: str) -> Signature:
    """Return the signature of the published version."""
    return Signature.from_json(served_manifest(settings, target).signature)


def unreachable(settings: Settings, version: int) -> dict[str, str]:
    """Return the targets without an artifact in a version, with the reason in their manifest."""
    found = {}
    for name in targets.NAMES:
        folder = repository.version_dir(settings.repository, name, settings.model, version)
        with suppress(ManifestError):
            if why := repository.read_manifest(folder).unreachable:
                found[name] = why
    return found


def sample_folder(settings: Settings, version: int) -> Path:
    """Return the folder of a version's sample requests."""
    return repository.version_dir(settings.repository, "tfjs", settings.model, version) / SAMPLES


def runs(settings: Settings, target: str, version: int | None, image: str = "") -> str:
    """Return, for example, "PyTorch (torch.export) in TorchServe"; `image` is that of the target's container."""
    server = "TensorFlow Serving" if image.startswith(ORIGINAL) else targets.load(target).server
    if version is None:
        return f"nothing yet, in {server}"
    try:
        folder = repository.version_dir(settings.repository, target, settings.model, version)
        manifest = repository.read_manifest(folder)
        runtime = manifest.runtime + (f", converted by {manifest.converter}," if manifest.converter else "")
    except ManifestError:
        runtime = ""
    return f"{runtime or 'unknown runtime'} in {server}"
