"""What a result was made from, as a digest: equal digests mean that nothing needs to be made again."""

from __future__ import annotations

import hashlib
import json
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import models
import pipelines
from models.base import Model

TRAINING_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "torch", "lightning", "numpy")
EXPORTING_LIBRARIES = ("tensorflowjs", "tf2onnx", "onnx", "onnxscript", "onnxruntime", "ai-edge-litert")
MODELS, PIPELINES = (Path(str(package.__file__)).parent for package in (models, pipelines))


def training(
    model: Model,
    profile: str,
    seed: int,
    data_digest: str,
    precision: str = "float32",
    devices: int = 1,
    device: str = "auto",
) -> str:
    """Sources of the model and of the training, parameters, data, and the libraries' versions."""
    sources = [*MODELS.glob("*.py"), *model.folder.glob("*.py")]
    sources += [*(PIPELINES / "data").glob("*.py"), *(PIPELINES / "training").glob("*.py")]
    parameters = [profile, seed, data_digest, precision, devices, device, libraries(TRAINING_LIBRARIES)]
    return _digest(sources, parameters)


def version_of(model: Model, training_fingerprint: str, source: str, form: str, wanted: str = "") -> str:
    """The training's fingerprint, and everything that decides how it is exported and gated."""
    sources = [*(PIPELINES / "gates").glob("*.py"), *(PIPELINES / "exporting").glob("*.py")]
    sources += [*(PIPELINES / "validation").glob("*.py"), *model.folder.glob("*.json")]
    serving = PIPELINES.parent / "serving"
    sources += [serving / "golden.py", *(serving / "torchserve").glob("*.py")]
    parameters = [model.spec.name, training_fingerprint, source, form, wanted, libraries(EXPORTING_LIBRARIES)]
    return _digest(sources, parameters)


def libraries(names: tuple[str, ...]) -> dict[str, str]:
    """The installed ones among `names`, with their versions."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_commit() -> str:
    """The commit of the sources, with `-dirty` where they differ from it; "" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PIPELINES, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _digest(sources: list[Path], parameters: object) -> str:
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in sorted(sources):
        digest.update(f"{path.parent.name}/{path.name}:".encode() + path.read_bytes())
    return digest.hexdigest()
