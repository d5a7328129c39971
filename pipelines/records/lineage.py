"""The lineage store: which step of which run read and wrote which artifacts.

One JSON file a run, `artifacts/lineage/<model>/<run>.json`, of either orchestrator. Types have TFX's names where it has
them (Examples, Schema, ExampleStatistics, Model, PushedModel; StatisticsGen, Trainer, Evaluator, Pusher).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import TandemError
from serving.repository import write_atomically


class LineageError(TandemError):
    """A record of the store cannot be read."""


@dataclass(frozen=True)
class Artifact:
    """The input or output of a step; the same type, uri and digest are the same artifact."""

    type: str
    name: str
    uri: str = ""
    digest: str = ""
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """One step; `state` is `complete`, `cached` (its outputs were there), `refused`, `failed` or `interrupted`."""

    type: str
    state: str = "complete"
    seconds: float = 0.0
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of a pipeline. `id` sorts by time; `reason` says why there is no version."""

    id: str
    orchestrator: str
    model: str
    state: str
    """`published`, `complete` (well, but without a version), `refused` by a gate, `failed` or `interrupted`."""
    started: str
    seconds: float
    parameters: dict[str, Any]
    code: dict[str, Any]
    """`git_commit`, `fingerprint`, `libraries`."""
    executions: tuple[Execution, ...] = ()
    version: int | None = None
    reason: str = ""
    page: str = ""
    """The path of the run's page, relative to the artifacts' folder."""


def record(store: Path, run: Run) -> Path:
    """Write a run into the store (`settings.lineage`), replacing what it held of the same run; returns the file."""
    path = store / run.model / f"{run.id}.json"
    write_atomically(path, json.dumps(asdict(run), indent=1) + "\n")
    return path


def runs(store: Path, model: str) -> list[Run]:
    """Read every run of a model, oldest first. Raises `LineageError` for a file that cannot be read."""
    return [read(path) for path in sorted((store / model).glob("*.json"))]


def read(path: Path) -> Run:
    """Read one run. Raises `LineageError`."""
    try:
        fields = json.loads(path.read_text())
        for step in fields["executions"]:
            for kind in ("inputs", "outputs"):
                step[kind] = tuple(Artifact(**artifact) for artifact in step[kind])
        return Run(**fields | {"executions": tuple(Execution(**step) for step in fields["executions"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LineageError(f"{path} cannot be read as a run: {type(error).__name__} {error}") from error


def digest(files: Mapping[str, str]) -> str:
    """Return one digest of a folder, from those of its files by name."""
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def of_version(known: Sequence[Run], version: int) -> Run | None:
    """Return the run that published a version; None if it is not known."""
    return next((run for run in known if run.version == version and run.state == "published"), None)


def refused_before(known: Sequence[Run], version: int) -> list[Run]:
    """Return the runs between the version before and this one that published nothing. `known` are sorted by time."""
    found: list[Run] = []
    for run in known:
        if run.state == "published":
            if run.version == version:
                return found
            found = []
        elif run.state != "complete":
            found.append(run)
    return []
