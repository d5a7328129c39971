"""Policies: the versions of a model to serve, and retries of versions that did not load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving import repository

Policy = Callable[[Path], list[int]]
"""Return the versions to serve of a model's folder. Raises `RepositoryError`."""


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: the folder of its versions, and the policy that selects them."""

    name: str
    directory: Path
    policy: Policy
    labels: Mapping[str, int] = field(default_factory=dict)
    """Version numbers by label."""


def folder_of(directory: Path, version: int) -> Path:
    """Return the folder of a version; its name may have leading zeros."""
    plain = directory / str(version)
    if plain.is_dir() or not directory.is_dir():
        return plain
    named = (p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir())
    return next((p for p in sorted(named) if int(p.name) == version), plain)


def pointed(directory: Path) -> list[int]:
    """Return the version of the pointer file, else the highest."""
    version = repository.served_version(directory)
    return [] if version is None else [version]


def latest(count: int = 1) -> Policy:
    return lambda directory: every(directory)[-count:]


def every(directory: Path) -> list[int]:
    """Return all versions. Raises `RepositoryError` for a missing folder, which may come back."""
    if not directory.is_dir():
        raise repository.RepositoryError(f"could not find base path {directory}")
    return sorted(set(repository.versions(directory)))


def specific(*numbers: int) -> Policy:
    return lambda directory: sorted(numbers)  # noqa: ARG005 - independent of the folder


def models_below(root: Path) -> dict[str, ModelConfig]:
    """Return the models of a model repository: each folder that holds a version or a pointer."""
    if not root.is_dir():
        return {}
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    models = [p for p in folders if (p / repository.POINTER).exists() or repository.versions(p)]
    return {p.name: ModelConfig(p.name, p, pointed) for p in models}


@dataclass(frozen=True)
class RetryPolicy:
    """Retries of a version that did not load and whose files did not change."""

    retries: int = 0
    seconds: float = 60.0
    """Time between attempts."""


def stamp_of(directory: Path) -> object:
    """Return a value that changes when a file of the folder changes."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
