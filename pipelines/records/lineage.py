"""What was made from what: a store with the concepts of ML Metadata (artifacts, executions, events, contexts).

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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import TandemError
from serving.repository import write_atomically

STATES = ("published", "complete", "refused", "failed", "interrupted")
"""How a run ends: with a version; well, but without one; by a gate; by an error; by Ctrl-C."""


class LineageError(TandemError):
    """The store knows nothing of what was asked for, or cannot be read."""


@dataclass(frozen=True)
class Artifact:
    """Something that was read or written; the same type, uri and digest are the same artifact."""

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
    started: str
    seconds: float
    parameters: dict[str, Any]
    code: dict[str, Any]
    """`git_commit`, `fingerprint`, `libraries`."""
    executions: tuple[Execution, ...] = ()
    version: int | None = None
    reason: str = ""
    page: str = ""
    """Where the run's page lies, relative to the artifacts' folder."""


def record(store: Path, run: Run) -> Path:
    """Write a run into the store (`settings.lineage`), replacing what it held of the same run; returns the file."""
    if run.state not in STATES:
        raise LineageError(f"a run's state is one of {', '.join(STATES)}, not {run.state!r}")
    ids: dict[tuple[str, str, str, str], int] = {}
    artifacts: list[dict[str, Any]] = []
    events = []

    def number(artifact: Artifact) -> int:
        key = (artifact.type, artifact.name, artifact.uri, artifact.digest)
        if key not in ids:
            ids[key] = len(ids) + 1
            artifacts.append({"id": ids[key]} | asdict(artifact))
        return ids[key]

    executions = []
    for position, execution in enumerate(run.executions, 1):
        fields = asdict(execution)
        del fields["inputs"], fields["outputs"]
        executions.append({"id": position} | fields)
        for kind, own in (("INPUT", execution.inputs), ("OUTPUT", execution.outputs)):
            events += [{"execution": position, "artifact": number(one), "type": kind} for one in own]
    context = {key: value for key, value in asdict(run).items() if key != "executions"}
    graph = {"context": context, "artifacts": artifacts, "executions": executions, "events": events}
    path = store / run.model / f"{run.id}.json"
    write_atomically(path, json.dumps(graph, indent=1) + "\n")
    return path


def runs(store: Path, model: str) -> list[Run]:
    """Every run of a model, oldest first. Raises `LineageError` where a file cannot be read."""
    return [read(path) for path in sorted((store / model).glob("*.json"))]


def read(path: Path) -> Run:
    """One run. Raises `LineageError`."""
    try:
        graph = json.loads(path.read_text())
        artifacts = {one.pop("id"): Artifact(**one) for one in graph["artifacts"]}
        executions = []
        for fields in graph["executions"]:
            own = fields.pop("id")

            def of(kind: str, own: int = own) -> tuple[Artifact, ...]:
                return tuple(
                    artifacts[event["artifact"]]
                    for event in graph["events"]
                    if (event["execution"], event["type"]) == (own, kind)
                )

            executions.append(Execution(**fields, inputs=of("INPUT"), outputs=of("OUTPUT")))
        return Run(**graph["context"], executions=tuple(executions))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LineageError(f"{path} cannot be read as a run: {type(error).__name__} {error}") from error


def digest(files: Mapping[str, str]) -> str:
    """One digest for a folder, from those of its files by their names."""
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def outputs(run: Run, type: str) -> list[Artifact]:
    """What a run wrote of one type."""
    return [one for execution in run.executions for one in execution.outputs if one.type == type]


def of_version(known: Iterable[Run], version: int) -> Run | None:
    """The run that published a version."""
    return next((run for run in known if run.version == version and run.state == "published"), None)


def refused_before(known: Iterable[Run], version: int) -> list[Run]:
    """What did not become a version on the way from the version before to this one."""
    found: list[Run] = []
    for run in sorted(known, key=lambda one: one.id):
        if run.state == "published":
            if run.version == version:
                return found
            found = []
        elif run.state in ("refused", "failed", "interrupted"):
            found.append(run)
    return []
