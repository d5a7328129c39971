"""Publishing of candidates that passed their gates, and rollback.

Folders appear complete, by a rename; the model's pointer is the commit, and the targets' own pointers follow it. The
next publication, or `settle`, repairs one that was interrupted.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving import repository, targets
from serving.errors import TandemError
from serving.repository import POINTER, Manifest, ManifestError, Pointer


class PublishError(TandemError):
    """A version cannot be published, or there is none to roll back to."""


@dataclass(frozen=True)
class Version:
    """A published version, and its folder by target."""

    number: int
    folders: Mapping[str, Path]


def pointer(root: Path, model: str) -> Pointer | None:
    """Return the pointer to the published version; None before the first."""
    return repository.read_pointer(root / f"{model}.json")


def published(root: Path, model: str) -> Pointer:
    """Return the pointer to the published version. Raises `PublishError` before the first."""
    now = pointer(root, model)
    if now is None:
        raise PublishError(f"no version of {model} is published; `make deploy` publishes the first")
    return now


def require(root: Path, model: str, version: int) -> None:
    """Raise `PublishError` if a version does not exist for every target."""
    if version not in (known := versions(root, model)):
        there = ", ".join(map(str, known)) or "none"
        raise PublishError(f"version {version} of {model} is not in the repository; there are: {there}")


def versions(root: Path, model: str) -> list[int]:
    """Return the versions that exist for every target, ascending."""
    present = [
        set(repository.versions(repository.model_dir(root, target, model))) for target in targets.NAMES
    ]
    return sorted(set.intersection(*present))


def find(root: Path, model: str, fingerprint: str) -> int | None:
    """Return the newest version with this fingerprint; None if there is none."""
    for version in reversed(versions(root, model)):
        with suppress(ManifestError):
            folder = repository.version_dir(root, targets.NAMES[0], model, version)
            if repository.read_manifest(folder).fingerprint == fingerprint:
                return version
    return None


def publish(
    root: Path, model: str, candidate: Path, manifests: Mapping[str, Manifest], statistics: str = "{}"
) -> Version:
    """Copy `candidate/<target>` into the repository as the next version and point to it.

    `manifests` have no version yet; the files that they name are those that passed the gates. `statistics` are the
    data's, as JSON by split. Raises `PublishError`; the published version then stays.
    """
    version = settle(root, model) + 1
    incoming = {
        target: repository.model_dir(root, target, model) / f".incoming-{version}" for target in targets.NAMES
    }
    try:
        for target, beside in incoming.items():
            shutil.copytree(candidate / target, beside)
            files = repository.file_digests(beside)
            if manifests[target].files not in ({}, files):
                raise PublishError(f"{candidate / target} was changed after it passed its gates")
            manifest = dataclasses.replace(manifests[target], version=version, files=files)
            repository.write_manifest(beside, manifest)
            for path in [*beside.rglob("*"), beside]:
                repository.sync(path)
        repository.write_atomically(repository.statistics_path(root, model, version), statistics)
        for target, beside in incoming.items():
            beside.replace(repository.version_dir(root, target, model, version))
            repository.sync(beside.parent)
    except (OSError, PublishError) as error:
        for beside in incoming.values():
            shutil.rmtree(beside, ignore_errors=True)
        raise PublishError(f"version {version} of {model} could not be written: {error}") from error
    point(root, model, version)
    return Version(
        version, {name: repository.version_dir(root, name, model, version) for name in targets.NAMES}
    )


def statistics(root: Path, model: str, version: int) -> str | None:
    """Return the statistics of a version's data as JSON; None if it has none."""
    path = repository.statistics_path(root, model, version)
    return path.read_text() if path.exists() else None


def point(root: Path, model: str, version: int, held: bool = False) -> None:
    """Make `version` the published one. Raises `PublishError` if it is incomplete or was changed."""
    require(root, model, version)
    if found := damage(root, model, version):
        raise PublishError(f"version {version} of {model} was tampered with, what is served stays: {found}")
    before = pointer(root, model) or Pointer(version)
    previous = before.previous if before.version == version else before.version
    repository.write_pointer(root / f"{model}.json", Pointer(version, previous, held))
    settle(root, model)


def damage(root: Path, model: str, version: int) -> str:
    """Return the first change to a version's files since it was published; "" if there is none."""
    try:
        for target in targets.NAMES:
            repository.verify(repository.version_dir(root, target, model, version))
    except ManifestError as error:
        return str(error)
    return ""


def rollback(root: Path, model: str, version: int | None = None) -> int:
    """Point to `version`, or to the one before, and hold it there until the sources change. Returns the version.
    Raises `PublishError` if there is none."""
    now = published(root, model)
    target = version if version is not None else now.previous
    if target is None:
        raise PublishError(
            f"version {now.version} of {model} is the only one; there is nothing to go back to"
        )
    point(root, model, target, held=True)
    return target


def settle(root: Path, model: str) -> int:
    """Repair an interrupted publication: remove half-written folders, and update the targets' pointers. Returns the
    highest version, which may lack files since; 0 if there is none."""
    committed = pointer(root, model)
    complete = versions(root, model)
    last = max([*complete, committed.version if committed else 0])
    for target in targets.NAMES:
        folder = repository.model_dir(root, target, model)
        for left in folder.glob(".incoming-*"):
            shutil.rmtree(left)
        for version in repository.versions(folder):
            if version > last:
                shutil.rmtree(folder / str(version))
        if committed and repository.read_pointer(folder / POINTER) != committed:
            repository.write_pointer(folder / POINTER, committed)
    return last
