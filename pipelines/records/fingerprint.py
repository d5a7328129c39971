"""The digest of a result's sources: equal digests mean that nothing needs to be made again."""

from __future__ import annotations

import hashlib
import json
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import models
import pipelines
from models.base import Model
from serving.settings import Settings

TRAINING_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "torch", "lightning", "numpy")
EXPORTING_LIBRARIES = ("tensorflowjs", "tf2onnx", "onnx", "onnxscript", "onnxruntime", "ai-edge-litert")
TRAINED = ("profile", "seed", "precision", "devices", "device")
"""The settings that a training depends on."""
EXPORTED = ("source", "torchserve_form", "targets")
"""The settings that its artifacts depend on."""
MODELS, PIPELINES = (Path(str(package.__file__)).parent for package in (models, pipelines))


def training(model: Model, settings: Settings, data_digest: str) -> str:
    """Return the digest of a training's sources, settings, data and libraries."""
    sources = [*MODELS.glob("*.py"), *model.folder.rglob("*.py")]
    sources += [*(PIPELINES / "data").glob("*.py"), *(PIPELINES / "training").glob("*.py")]
    return _digest(sources, [_values(settings, TRAINED), data_digest, libraries(TRAINING_LIBRARIES)])


def version_of(model: Model, settings: Settings, training_fingerprint: str) -> str:
    """Return the digest of a training's fingerprint and of all that decides how it is exported and gated."""
    sources = [*(PIPELINES / "gates").glob("*.py"), *(PIPELINES / "exporting").glob("*.py")]
    sources += [*(PIPELINES / "validation").glob("*.py"), *model.folder.glob("*.json")]
    serving = PIPELINES.parent / "serving"
    sources += [serving / "golden.py", *(serving / "torchserve").rglob("*.py")]
    own = [model.spec.name, training_fingerprint, _values(settings, EXPORTED)]
    return _digest(sources, [*own, libraries(EXPORTING_LIBRARIES)])


def libraries(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the installed libraries among `names`."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def git_commit() -> str:
    """Return the commit of the sources, with `-dirty` if they differ from it; "" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PIPELINES, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _values(settings: Settings, names: tuple[str, ...]) -> list[Any]:
    return [getattr(settings, name) for name in names]


def _digest(sources: list[Path], parameters: object) -> str:
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in sorted(sources):
        digest.update(f"{path.parent.name}/{path.name}:".encode() + path.read_bytes())
    return digest.hexdigest()
