"""Other projects' model servers with the same .onnx file, each in an environment of its own, as rows of a comparison.

`peers.toml` describes them.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from models.signature import Arrays, Signature
from pipelines.cli import subjects
from serving import golden
from serving.compare import conditions, endpoints, environments, servers
from serving.compare.report import PEER, Row
from serving.errors import TandemError
from serving.settings import Settings
from serving.targets.base import TargetError

FOLDER = Path(__file__).parent
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

    def urls(self, settings: Settings) -> list[str]:
        """Return its addresses."""
        ports = {"http": settings.onnxruntime_rest_port, "grpc": settings.onnxruntime_grpc_port}
        return [endpoint.format(model=settings.model, **ports) for endpoint in self.endpoints]

    def started(
        self,
        settings: Settings,
        model: Path,
        signature: Signature,
        inputs: Arrays,
        python: Path,
        folder: Path,
    ) -> AbstractContextManager[servers.Server]:
        """Serve `model` during the block; it is ready when it answers `inputs`. Raises `TargetError`."""
        http, grpc = servers.free_ports(2)
        own = replace(settings, onnxruntime_rest_port=http, onnxruntime_grpc_port=grpc, artifacts=folder)
        work = folder / "work"
        work.mkdir(parents=True)
        flags = {"model": model.resolve(), "name": own.model, "http-port": http, "grpc-port": grpc}
        program = self.folder.resolve() / f"serve_{self.name}.py"
        command = [str(python), str(program), *(f"--{name}={value}" for name, value in flags.items())]

        def ready() -> bool:
            try:
                with closing(endpoints.connect(self.urls(own)[0], signature)) as client:
                    client.predict(inputs)
            except TargetError:
                return False
            return True

        # Without this project's environment.
        apart = {"PYTHONPATH": "", "VIRTUAL_ENV": ""}
        return servers.running([*command, f"--folder={work}"], apart, own, ready, READY_SECONDS, work)


def read(folder: Path = FOLDER) -> list[Peer]:
    """Return the peers of a folder."""
    document = tomllib.loads((folder / "peers.toml").read_text())
    return [
        Peer(name, folder, tuple(own["endpoints"]), own.get("batched", False))
        for name, own in document.items()
    ]


def add(rows: subjects.Rows) -> None:
    """Add a row for each address of each peer, or one with the reason why it does not run."""
    published, manifest = rows._folder("onnxruntime"), rows._manifest("onnxruntime")
    sample, signature = golden.read(published), Signature.from_json(manifest.signature)
    for peer in read():
        runs = f"ONNX Runtime in {peer.pins.read_text().split()[0].replace('==', ' ')}"
        row = Row(peer.name, "-", manifest.source, runs, kind=PEER, server=peer.name)
        rows.say(f"{peer.name}: environment, start")
        try:
            environment = rows.settings.artifacts / "peers" / peer.name
            python = environments.install(peer.pins, environment, Path(sys.executable))
            place = Path(rows.stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-")))
            inputs, file = sample.inputs if sample else {}, published / manifest.serve
            server = rows.stack.enter_context(
                peer.started(rows.settings, file, signature, inputs, python, place)
            )
        except (TandemError, OSError) as error:
            rows._refused(row, error)
            continue
        row.conditions = conditions.of("", manifest, server.pid, peer.batched)
        row.artifact_bytes = file.stat().st_size
        for url in peer.urls(server.settings):
            rows._add(row, endpoints.parse(url).scheme, server, target=url, signature=manifest.signature)
