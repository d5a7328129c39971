"""The model repository: its layout, its manifests and its pointers, shared by the publisher and the servers.

    <root>/<target>/<model>/<version>/      one artifact, never changed once it is there
    <root>/<target>/<model>/<version>/manifest.json
    <root>/<target>/<model>/current.json    which version the servers of this target serve
    <root>/<model>.json                     the pointer that the others follow: the commit of a publication
    <root>/statistics/<model>/<version>.json    of the data that a version was made from; no server reads it

Everything is written beside its place, synced, and renamed, so a reader never sees half of it.
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
"""The golden sample of a version, where it has one: serving/golden.py."""
POINTER = "current.json"


class RepositoryError(TandemError):
    """The model repository does not hold what was asked for, or holds it damaged."""


class ManifestError(RepositoryError):
    """A version's files are not those that its manifest names."""


@dataclass(frozen=True)
class Manifest:
    """What one artifact is and where it came from.

    `files` maps each path, relative to the version's folder, to its sha256. `signature` is that of models/signature.py,
    as JSON, and `task` says what the outputs mean: its kind, its classes. `serve` is the
    file that a server opens ("" for the folder).
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
    """What it was trained and exported with: `profile`, `seed`, `source`."""
    weights: dict[str, str] = field(default_factory=dict)
    """The digest of each framework's trained weights."""
    batched: bool = False
    """True if rows of several requests may share a run: proved by the gate; False where nothing says so."""
    finite: bool = False
    """True if inputs must have rows and finite numbers: servers refuse others before the model sees them."""
    runtime: str = ""
    """What runs it in its target's server; "" in versions that do not say."""
    converter: str = ""
    """What has made it from another framework's graph, where it was not exported by its own: `tf2onnx`, `onnx2tf`."""
    unreachable: str = ""
    """Why the target has no artifact in this version, where it has none: then there is nothing to serve."""
    instruction_set: dict[str, Any] = field(default_factory=dict)
    """What the CPU must offer, where code was compiled: `machine`, `march`, `simdlen`, `capabilities`."""
    export_seconds: float = 0.0
    """What its export took; 0 in versions that do not say."""


@dataclass(frozen=True)
class Pointer:
    """Which version is served, which was served before it, and whether a rollback holds it there."""

    version: int
    previous: int | None = None
    held: bool = False


def model_dir(root: Path, target: str, model: str) -> Path:
    """The folder of all versions of `model` for `target`."""
    return root / target / model


def version_dir(root: Path, target: str, model: str, version: int) -> Path:
    """The folder of one artifact."""
    return model_dir(root, target, model) / str(version)


def statistics_path(root: Path, model: str, version: int) -> Path:
    """The statistics of the data that a version was made from."""
    return root / "statistics" / model / f"{version}.json"


def versions(directory: Path) -> list[int]:
    """The versions under a model's folder, ascending; names that are not plain integers are passed over."""
    if not directory.is_dir():
        return []
    return sorted(
        int(p.name) for p in directory.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir()
    )


def read_pointer(path: Path) -> Pointer | None:
    """Read a pointer file; None where there is none. Raises `RepositoryError` where it cannot be understood."""
    try:
        fields = json.loads(path.read_text())
        return Pointer(int(fields["version"]), fields["previous"], bool(fields["held"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RepositoryError(
            f"{path}: expected a pointer with version, previous and held: {error}"
        ) from error


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Replace a pointer file atomically."""
    write_atomically(path, json.dumps(asdict(pointer)) + "\n")


def served_version(directory: Path) -> int | None:
    """The version of a model's folder that its server is to serve: the pointer's, else the highest one."""
    pointer = read_pointer(directory / POINTER)
    if pointer is not None:
        return pointer.version
    present = versions(directory)
    return present[-1] if present else None


def file_digests(directory: Path) -> dict[str, str]:
    """sha256 of every file below `directory` but the manifest, by its path relative to it, sorted."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(directory).as_posix(): file_digest(p) for p in paths}


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_seal(directory: Path, sealed: Path) -> None:
    """Write down beside `sealed` which files `directory` holds, which is to be renamed to it."""
    write_atomically(_seal_path(sealed), json.dumps(file_digests(directory), indent=1) + "\n")


def read_seal(sealed: Path) -> dict[str, str]:
    """What `write_seal` wrote down; empty where it did not."""
    try:
        digests: dict[str, str] = json.loads(_seal_path(sealed).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return digests


def broken_seal(sealed: Path) -> list[str]:
    """The files of a sealed folder that were changed, added or removed since, sorted."""
    before, now = read_seal(sealed), file_digests(sealed)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _seal_path(sealed: Path) -> Path:
    return sealed.with_name(f"{sealed.name}.sha256.json")


def read_manifest(directory: Path) -> Manifest:
    """Read a version's manifest. Raises `ManifestError` where it is missing or cannot be understood."""
    path = directory / MANIFEST
    try:
        fields: Mapping[str, Any] = json.loads(path.read_text())
        return Manifest(**fields)
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing: the version was not published by Tandem") from None
    except (ValueError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read as a manifest: {error}") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a version's manifest."""
    write_atomically(directory / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def verify(directory: Path) -> Manifest:
    """Read a version's manifest and check every file against it. Raises `ManifestError` naming the first fault."""
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
    """Make a file's content, or renames within a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
