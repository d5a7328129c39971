"""The lineage store, with the concepts of ML Metadata (artifacts, executions, events, contexts).

One JSON file a run, `artifacts/lineage/<model>/<run>.json`, whichever orchestrator ran it:

    context     the run: orchestrator, model, state, parameters, code
    artifacts   id, type, name, uri, digest, properties: what was read or written
    executions  id, type, state, seconds, properties: the steps
    events      execution, artifact, INPUT or OUTPUT: which step read or wrote which artifact

Types have TFX's names where TFX has them (Examples, Schema, ExampleStatistics, Model, PushedModel; StatisticsGen,
Trainer, Evaluator, Pusher). ML Metadata itself needs a newer glibc than Debian 12's.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
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
    artifacts: list[Artifact] = []
    events = []
    for position, execution in enumerate(run.executions, 1):
        for kind, used in (("INPUT", execution.inputs), ("OUTPUT", execution.outputs)):
            for artifact in used:
                if artifact not in artifacts:
                    artifacts.append(artifact)
                number = artifacts.index(artifact) + 1
                events.append({"execution": position, "artifact": number, "type": kind})
    context = asdict(run)
    executions = context.pop("executions")
    for fields in executions:
        del fields["inputs"], fields["outputs"]
    graph = {
        "context": context,
        "artifacts": [{"id": number} | asdict(artifact) for number, artifact in enumerate(artifacts, 1)],
        "executions": [{"id": number} | fields for number, fields in enumerate(executions, 1)],
        "events": events,
    }
    path = store / run.model / f"{run.id}.json"
    write_atomically(path, json.dumps(graph, indent=1) + "\n")
    return path


def runs(store: Path, model: str) -> list[Run]:
    """Read every run of a model, oldest first. Raises `LineageError` for a file that cannot be read."""
    return [read(path) for path in sorted((store / model).glob("*.json"))]


def read(path: Path) -> Run:
    """Read one run. Raises `LineageError`."""
    try:
        graph = json.loads(path.read_text())
        artifacts = {fields.pop("id"): Artifact(**fields) for fields in graph["artifacts"]}
        used: dict[tuple[int, str], list[Artifact]] = defaultdict(list)
        for event in graph["events"]:
            used[event["execution"], event["type"]].append(artifacts[event["artifact"]])
        executions = []
        for fields in graph["executions"]:
            number = fields.pop("id")
            inputs, outputs = (tuple(used[number, kind]) for kind in ("INPUT", "OUTPUT"))
            executions.append(Execution(**fields, inputs=inputs, outputs=outputs))
        return Run(**graph["context"], executions=tuple(executions))
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
