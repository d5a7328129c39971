"""An imported file that serves as a model: its path, its format, and its digest at the import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.errors import TandemError
from serving.repository import file_digest

FORMATS = {
    "onnx": "the .onnx file",
    "saved_model": "the SavedModel",
    "keras": "the .keras file",
    "tflite": "the .tflite file",
    "pt2": "the .pt2 file",
}


class ArtifactError(TandemError):
    """An imported file is missing, was changed, or cannot be imported."""


@dataclass(frozen=True)
class Artifact:
    """An existing file, or the folder of a SavedModel, that a model's folder names instead of a network."""

    path: str
    format: str
    """One of `FORMATS`."""
    sha256: str
    """Of the file, or of a folder's files."""
    signature_key: str = "serving_default"
    """The name of a SavedModel's signature."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The spec's names of inputs and outputs, by their names in the file, where these are no identifiers."""
    trusted: bool = False
    """True if the user allows code in the file to run."""

    def file(self) -> Path:
        """Return the path. Raises `ArtifactError` if the file is missing or was changed since its import."""
        path = Path(self.path)
        if not path.exists():
            raise ArtifactError(f"{path} is missing, which was imported: put it back, or import it anew")
        if (now := digest(path)) != self.sha256:
            raise ArtifactError(
                f"{path} was changed since it was imported: sha256 {now[:12]}…, the spec says "
                f"{self.sha256[:12]}…; `tandem import` it anew, or put it back"
            )
        return path

    def own(self, name: str) -> str:
        """Return the file's name of an input or output of the spec."""
        return next((theirs for theirs, ours in self.names.items() if ours == name), name)


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of a folder's files or of an .onnx with its data."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else _external(path)
    if not files:
        return file_digest(path)
    root, whole = path if path.is_dir() else path.parent, hashlib.sha256()
    for file in files:
        whole.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


def _external(path: Path) -> list[Path]:
    """Return an .onnx file and its external data files; none if it has none, or is not ONNX."""
    if path.suffix != ".onnx":
        return []
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False)
    except DecodeError:
        return []
    entries = (entry for tensor in graph.graph.initializer for entry in tensor.external_data)
    files = [path.parent / name for name in sorted({e.value for e in entries if e.key == "location"})]
    return [path, *(file for file in files if file.is_file())] if files else []
