"""The model repository: its layout, its manifests and its pointers, shared by the publisher and the servers.

    <root>/<target>/<model>/<version>/      one artifact, never changed once it is there
    <root>/<target>/<model>/<version>/manifest.json
    <root>/<target>/<model>/current.json    the version that the servers of this target serve
    <root>/<model>.json                     the pointer that the others follow: the commit of a publication
    <root>/statistics/<model>/<version>.json    of a version's data; not read by servers

Files are written beside their place, synced, and renamed, so that readers never see a part of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import TandemError

MANIFEST = "manifest.json"
GOLDEN = "golden.json"
"""The golden sample of a version, if any: serving/golden.py."""
POINTER = "current.json"


class RepositoryError(TandemError):
    """Something is missing or damaged in the model repository."""


class ManifestError(RepositoryError):
    """A version's files differ from its manifest."""


@dataclass(frozen=True)
class Manifest:
    """The description and origin of an artifact.

    `files` maps each path, relative to the version's folder, to its sha256. `signature` is that of models/signature.py
    as JSON, `task` the kind and classes. `serve` is the file that a server opens ("" for the folder).
    """

    model: str
    version: int
    target: str
    source: str
    files: dict[str, str]
    serve: str
    signature: dict[str, Any]
    metrics: dict[str, float]
    data_digest: str
    seed: int
    fingerprint: str
    created: str
    task: dict[str, Any] = field(default_factory=dict)
    git_commit: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of training and export: `profile`, `seed`, `source`."""
    weights: dict[str, str] = field(default_factory=dict)
    """The digest of each framework's trained weights."""
    batched: bool = False
    """True if requests may share a run, as the gate has proved."""
    finite: bool = False
    """True if servers refuse inputs without rows or with numbers that are not finite."""
    runtime: str = ""
    """The runtime in its target's server; "" if unknown."""
    converter: str = ""
    """The converter from another framework's graph, if any: `tf2onnx`, `onnx2tf`."""
    unreachable: str = ""
    """The reason why the target has no artifact in this version; "" if it has one."""
    instruction_set: dict[str, Any] = field(default_factory=dict)
    """The CPU that compiled code needs: `machine`, `march`, `simdlen`, `capabilities`."""
    export_seconds: float = 0.0
    """Duration of the export; 0 if unknown."""


@dataclass(frozen=True)
class Pointer:
    """The served version, the previous one, and `held`: True after a rollback."""

    version: int
    previous: int | None = None
    held: bool = False


def model_dir(root: Path, target: str, model: str) -> Path:
    """Return the folder of all versions of `model` for `target`."""
    return root / target / model


def version_dir(root: Path, target: str, model: str, version: int) -> Path:
    """Return the folder of one artifact."""
    return model_dir(root, target, model) / str(version)


def statistics_path(root: Path, model: str, version: int) -> Path:
    """Return the file with the statistics of a version's data."""
    return root / "statistics" / model / f"{version}.json"


def version_folders(directory: Path) -> dict[int, Path]:
    """Return the versions in a model's folder, ascending; other names than integers of 63 bits are ignored."""
    if not directory.is_dir():
        return {}
    named = [p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir()]
    ordered = sorted((int(p.name), p) for p in named)
    return {number: path for number, path in ordered if number < 2**63}


def versions(directory: Path) -> list[int]:
    """Return the numbers of `version_folders`."""
    return list(version_folders(directory))


def read_pointer(path: Path) -> Pointer | None:
    """Read a pointer file; None if it does not exist. Raises `RepositoryError` if it is invalid."""
    try:
        fields = json.loads(path.read_text())
        return Pointer(int(fields["version"]), fields["previous"], bool(fields["held"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RepositoryError(
            f"{path}: expected a pointer with version, previous and held: {error}"
        ) from error


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Replace a pointer file atomically."""
    write_atomically(path, json.dumps(asdict(pointer)) + "\n")


def served_version(directory: Path) -> int | None:
    """Return the version to serve of a model's folder: the pointer's, else the highest one."""
    pointer = read_pointer(directory / POINTER)
    if pointer is not None:
        return pointer.version
    present = versions(directory)
    return present[-1] if present else None


def file_digests(directory: Path) -> dict[str, str]:
    """Return the sha256 of every file below `directory` but the manifest, by relative path, sorted."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(directory).as_posix(): file_digest(p) for p in paths}


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_seal(directory: Path, sealed: Path) -> None:
    """Write the digests of the files in `directory` beside `sealed`, to which it will be renamed."""
    write_atomically(_seal_path(sealed), json.dumps(file_digests(directory), indent=1) + "\n")


def read_seal(sealed: Path) -> dict[str, str]:
    """Read the digests of `write_seal`; empty if there are none."""
    try:
        digests: dict[str, str] = json.loads(_seal_path(sealed).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return digests


def broken_seal(sealed: Path) -> list[str]:
    """Return the files of a sealed folder that have been changed, added or removed, sorted."""
    before, now = read_seal(sealed), file_digests(sealed)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _seal_path(sealed: Path) -> Path:
    return sealed.with_name(f"{sealed.name}.sha256.json")


def read_manifest(directory: Path) -> Manifest:
    """Read a version's manifest. Raises `ManifestError` if it is missing or invalid."""
    path = directory / MANIFEST
    try:
        fields: Mapping[str, Any] = json.loads(path.read_text())
        return Manifest(**fields)
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing: the version was not published by Tandem") from None
    except (ValueError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read as a manifest: {error}") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    write_atomically(directory / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def verify(directory: Path) -> Manifest:
    """Read a version's manifest and check all files against it. Raises `ManifestError` with the first fault."""
    manifest = read_manifest(directory)
    found = file_digests(directory)
    for name, expected in manifest.files.items():
        if name not in found:
            raise ManifestError(f"{directory / name} is missing, but {MANIFEST} lists it")
        if found[name] != expected:
            raise ManifestError(
                f"{directory / name} was changed: sha256 {found[name][:12]}…, {MANIFEST} says {expected[:12]}…"
            )
    extra = sorted(set(found) - set(manifest.files))
    if extra:
        raise ManifestError(f"{directory / extra[0]} is not listed in {MANIFEST}")
    return manifest


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path`, sync it, and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file, or the renames within a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
