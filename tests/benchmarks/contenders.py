"""What is measured: Tandem's servers and their peers, each with its protocols, its runtime and its command."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.repository import served_version, version_dir

from .encodings import BINARY, GRPC, JSON, OIP, OWN, ROWS, Protocol
from .peers import PINS, PROGRAMS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Artifacts:
    """A published model repository (serving/repository.py) and the model in it."""

    root: Path
    model: str

    @classmethod
    def find(cls, root: Path) -> Artifacts:
        """The repository's first model. Raises `FileNotFoundError` where there is none."""
        models = sorted(p.name for p in (root / "onnxruntime").glob("*") if p.is_dir())
        if not models:
            raise FileNotFoundError(
                f"no model below {root / 'onnxruntime'}: expected what `make deploy` writes"
            )
        return cls(root.resolve(), models[0])

    def version(self, target: str) -> Path:
        """The folder of the version that is served. Raises `FileNotFoundError`."""
        number = served_version(self.root / target / self.model)
        if number is None:
            raise FileNotFoundError(f"no version of {self.model} below {self.root / target}")
        return version_dir(self.root, target, self.model, number)


@dataclass(frozen=True)
class Place:
    """Where a server is to run: whose Python, on which ports, with which empty folder."""

    python: Path
    http_port: int
    grpc_port: int
    folder: Path


@dataclass(frozen=True)
class Contender:
    """One server."""

    name: str
    runtime: str
    """What runs its model: the in-process figure that its own is compared with."""
    target: str
    """Whose artifact it serves."""
    protocols: tuple[Protocol, ...]
    command: Callable[[Artifacts, Place], list[str]]
    peer: bool = True
    code: Path = ROOT
    """Where its program lies, if it is Tandem's."""

    @property
    def pins(self) -> Path:
        """What an environment of its own is made from: for Tandem's servers, what their images have."""
        own = PINS / f"{self.name}.txt"
        return own if own.exists() else self.code / "docker" / self.target / "requirements.txt"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it starts with; a peer sees nothing of this project's."""
        dropped = ("PYTHONPATH", "VIRTUAL_ENV") if self.peer else ()
        return {name: value for name, value in os.environ.items() if name not in dropped}


def _tandem(backend: str, target: str, *flags: str) -> Callable[[Artifacts, Place], list[str]]:
    def command(artifacts: Artifacts, place: Place) -> list[str]:
        return [
            *_entry_point(place.python, "tandem_server"),
            f"--backend={backend}",
            f"--model-repository={artifacts.root / target}",
            f"--http-port={place.http_port}",
            f"--grpc-port={place.grpc_port}",
            *flags,
        ]

    return command


def _tandem_tf_serving(artifacts: Artifacts, place: Place) -> list[str]:
    return [
        *_entry_point(place.python, "tandem_tf_serving"),
        f"--model_name={artifacts.model}",
        f"--model_base_path={artifacts.root / 'tf-serving' / artifacts.model}",
        f"--rest_api_port={place.http_port}",
        f"--port={place.grpc_port}",
        "--tensorflow_intra_op_parallelism=1",
        "--enable_batching",
    ]


def _entry_point(python: Path, function: str) -> list[str]:
    return [str(python), "-c", f"from serving.server.main import {function}; {function}()"]


def _peer(name: str) -> Callable[[Artifacts, Place], list[str]]:
    def command(artifacts: Artifacts, place: Place) -> list[str]:
        return [
            str(place.python),
            str(PROGRAMS / f"serve_{name}.py"),
            f"--model={artifacts.version('onnxruntime') / 'model.onnx'}",
            f"--name={artifacts.model}",
            f"--http-port={place.http_port}",
            f"--grpc-port={place.grpc_port}",
            f"--folder={place.folder}",
        ]

    return command


ORT = "onnxruntime"
OURS, LITERT, TFS = "tandem-ort", "tandem-litert", "tandem-tfs"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, ORT, ORT, OIP, _tandem(ORT, ORT, "--batching"), peer=False),
        Contender(LITERT, "litert", "litert", OIP, _tandem("litert", "litert", "--batching"), peer=False),
        Contender(TFS, "tensorflow", "tf-serving", (ROWS,), _tandem_tf_serving, peer=False),
        Contender("bare", ORT, ORT, OIP, _peer("bare"), peer=False),
        # MLServer refuses binary tensors.
        Contender("mlserver", ORT, ORT, (JSON, GRPC), _peer("mlserver")),
        Contender("kserve", ORT, ORT, (JSON, BINARY, GRPC), _peer("kserve")),
        Contender("litserve", ORT, ORT, (OWN,), _peer("litserve")),
        Contender("bentoml", ORT, ORT, (OWN,), _peer("bentoml")),
        Contender("triton", ORT, ORT, OIP, _peer("triton")),
    )
}


def earlier(checkout: Path) -> Contender:
    """tandem-ort as it was at another commit, which is checked out there."""
    return Contender("tandem-before", ORT, ORT, OIP, _tandem(ORT, ORT), peer=False, code=checkout)
