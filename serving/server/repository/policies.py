"""Which versions of a model to serve, judged from its folder, and when to try one again that did not load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving import repository

Policy = Callable[[Path], list[int]]
"""From a model's folder to the versions wanted. Raises `RepositoryError` where it cannot be understood."""


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: where its versions lie, and which of them are wanted."""

    name: str
    directory: Path
    policy: Policy
    labels: Mapping[str, int] = field(default_factory=dict)
    """Version numbers by names that clients may use for them."""


def folder_of(directory: Path, version: int) -> Path:
    """The folder of a version, whose name may have leading zeros."""
    plain = directory / str(version)
    if plain.is_dir() or not directory.is_dir():
        return plain
    named = (p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir())
    return next((p for p in sorted(named) if int(p.name) == version), plain)


def pointed(directory: Path) -> list[int]:
    """The version that the publisher's pointer names, else the highest."""
    version = repository.served_version(directory)
    return [] if version is None else [version]


def latest(count: int = 1) -> Policy:
    return lambda directory: every(directory)[-count:]


def every(directory: Path) -> list[int]:
    """All versions. A folder that is not there, perhaps for a moment only, says nothing."""
    if not directory.is_dir():
        raise repository.RepositoryError(f"could not find base path {directory}")
    return sorted(set(repository.versions(directory)))


def specific(*numbers: int) -> Policy:
    return lambda directory: sorted(numbers)  # noqa: ARG005 - the folder has no say


def models_below(root: Path) -> dict[str, ModelConfig]:
    """Every model in a model repository: each folder that holds a version or a pointer."""
    if not root.is_dir():
        return {}
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    models = [p for p in folders if (p / repository.POINTER).exists() or repository.versions(p)]
    return {p.name: ModelConfig(p.name, p, pointed) for p in models}


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try a version again that did not load, and whose files did not change."""

    retries: int = 0
    seconds: float = 60.0
    """Between attempts."""


def stamp_of(directory: Path) -> object:
    """Return a value that differs when files of the folder do."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
