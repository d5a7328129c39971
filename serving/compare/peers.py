"""Other projects' model servers with the same .onnx file, each in its own environment.

A folder describes them in `peers.toml`, as tests/benchmarks/peers does.
"""

from __future__ import annotations

import tomllib
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from models.signature import Arrays, Signature
from serving.compare import endpoints
from serving.compare.servers import Server, free_ports, running
from serving.settings import Settings
from serving.targets.base import TargetError

FILE = "peers.toml"
READY_SECONDS = 90.0


@dataclass(frozen=True)
class Peer:
    """A server, with its pins in `<name>.txt` and its program in `serve_<name>.py` of `folder`."""

    name: str
    folder: Path
    endpoints: tuple[str, ...]
    """Addresses of serving/compare/endpoints.py, with {http}, {grpc} and {model}."""
    batched: bool = False

    @property
    def pins(self) -> Path:
        return self.folder / f"{self.name}.txt"

    @property
    def runs(self) -> str:
        """The runtime and server of its rows."""
        return f"ONNX Runtime in {self.pins.read_text().split()[0].replace('==', ' ')}"

    def urls(self, settings: Settings) -> list[str]:
        """Return its addresses."""
        ports = {"http": settings.onnxruntime_rest_port, "grpc": settings.onnxruntime_grpc_port}
        return [endpoint.format(model=settings.model, **ports) for endpoint in self.endpoints]


def read(folder: Path) -> list[Peer]:
    """Return the peers of a folder. Raises `TargetError` if it has none."""
    try:
        document = tomllib.loads((folder / FILE).read_text())
        return [
            Peer(name, folder, tuple(own["endpoints"]), own.get("batched", False))
            for name, own in document.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"{folder / FILE} describes no servers to compare with: {error!r}") from None


def started(
    peer: Peer,
    settings: Settings,
    model: Path,
    signature: Signature,
    inputs: Arrays,
    python: Path,
    folder: Path,
) -> AbstractContextManager[Server]:
    """Serve `model` during the block; it is ready when it answers `inputs`. Raises `TargetError`."""
    http, grpc = free_ports(2)
    own = replace(settings, onnxruntime_rest_port=http, onnxruntime_grpc_port=grpc, artifacts=folder)
    work = folder / "work"
    work.mkdir(parents=True)
    flags = {
        "model": model.resolve(),
        "name": own.model,
        "http-port": http,
        "grpc-port": grpc,
        "folder": work,
    }
    program = peer.folder.resolve() / f"serve_{peer.name}.py"
    command = [str(python), str(program), *(f"--{name}={value}" for name, value in flags.items())]

    def ready() -> bool:
        try:
            with closing(endpoints.connect(peer.urls(own)[0], signature)) as client:
                client.predict(inputs)
        except TargetError:
            return False
        return True

    # Without this project's environment.
    return running(command, {"PYTHONPATH": "", "VIRTUAL_ENV": ""}, own, ready, READY_SECONDS, work)
