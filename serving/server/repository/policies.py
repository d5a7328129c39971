"""Policies: the models to serve, and their versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving import repository

Policy = Callable[[Path], dict[int, Path]]
"""Return the versions to serve of a model's folder, each with its own folder, ascending. Raises `RepositoryError`."""


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: the folder of its versions, and the policy that selects them."""

    name: str
    directory: Path
    policy: Policy
    labels: Mapping[str, int] = field(default_factory=dict)
    """Version numbers by label."""


def pointed(directory: Path) -> dict[int, Path]:
    """Return the version of the pointer file, else the highest."""
    version = repository.served_version(directory)
    return {} if version is None else specific(version)(directory)


def latest(count: int = 1) -> Policy:
    return lambda directory: dict(list(every(directory).items())[-count:])


def every(directory: Path) -> dict[int, Path]:
    """Return all versions. Raises `RepositoryError` for a missing folder, which may come back."""
    if not directory.is_dir():
        raise repository.RepositoryError(f"could not find base path {directory}")
    return repository.version_folders(directory)


def specific(*numbers: int) -> Policy:
    """Return a policy of these versions, also of those that have no folder yet."""

    def policy(directory: Path) -> dict[int, Path]:
        found = repository.version_folders(directory)
        return {number: found.get(number, directory / str(number)) for number in sorted(numbers)}

    return policy


def models_below(root: Path) -> dict[str, ModelConfig]:
    """Return the models of a model repository: each folder that holds a version or a pointer.

    Folders with unprintable names are ignored: JSON and the metrics cannot hold all of them.
    """
    if not root.is_dir():
        return {}
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    models = [p.name for p in folders if p.name.isprintable() and _holds_versions(p)]
    return {name: ModelConfig(name, root / name, pointed) for name in models}


def _holds_versions(folder: Path) -> bool:
    try:
        return (folder / repository.POINTER).exists() or bool(repository.versions(folder))
    except OSError:
        return True  # Its policy tells the reason.


def stamp_of(directory: Path) -> object:
    """Return a value that changes when a file of the folder changes."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
