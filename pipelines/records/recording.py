"""The recording of a run: every step with its inputs, outputs and checks, then its page and lineage. Writes
`gates.json` and `index.html` to the run's folder, links to them to the training's, and the run to the lineage."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from models.base import FRAMEWORKS, ModelSpec
from models.data import Dataset
from pipelines.exporting import Candidate
from pipelines.gates import Check, GateError, require
from pipelines.gates.networks import Evaluated
from pipelines.publish import Version
from pipelines.records import lineage, page
from pipelines.records.lineage import Artifact, Execution, Run
from pipelines.training.record import Trained
from pipelines.validation import Published, Validated, statistics
from pipelines.validation.schema import Schema
from serving import repository

if TYPE_CHECKING:
    from pipelines.stages import Recipe

GATES = "gates.json"

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


@dataclass
class Recorder:
    """The record of a run so far. `folder` is its training's, below `artifacts`."""

    artifacts: Path
    folder: Path
    spec: ModelSpec
    executions: list[Execution] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    """The arguments and results of the steps, in order."""

    def step(self, type: str, function: Callable[P, R], *values: P.args, **options: P.kwargs) -> R:
        """Call a step, and record its time, values, checks and state.

        Raises the step's errors, and `GateError` if a check of its result refuses.
        """
        started, result, state = time.monotonic(), None, "complete"
        try:
            result = function(*values, **options)
            state = "cached" if getattr(result, "cached", False) else "complete"
            self.require(getattr(result, "checks", ()))
            return result
        except BaseException as error:
            if isinstance(error, GateError) and result is None:
                self.checks += error.checks
            state = _state(error)
            raise
        finally:
            self.values += [*values, result]
            inputs = tuple(artifact for value in values for artifact in self.described(value))
            framework = next((value for value in values if value in FRAMEWORKS), None)
            properties = {"framework": framework} if framework else {}
            seconds, outputs = round(time.monotonic() - started, 3), tuple(self.described(result))
            self.executions.append(Execution(type, state, seconds, inputs, outputs, properties))

    def require(self, checks: Sequence[Check]) -> None:
        """Record checks. Raises `GateError` if one refuses."""
        self.checks += checks
        require(checks)

    def last(self, kind: type[V]) -> V | None:
        """Return the last value of a type; None if there is none."""
        return next((value for value in reversed(self.values) if isinstance(value, kind)), None)

    def described(self, value: object) -> list[Artifact]:
        """Return the lineage's artifacts of a value."""
        match value:
            case Dataset():
                name = self.spec.data.name
                return [Artifact("Examples", name, f"data/{name}", value.digest)]
            case Schema(path=path):
                return [Artifact("Schema", path.name, str(path), repository.file_digest(path))]
            case Published(version=version):
                path = repository.statistics_path(self.artifacts / "repository", self.spec.name, version)
                return [self._stored("ExampleStatistics", f"version {version}", path)]
            case Validated():
                path = self.folder / "statistics.json"
                repository.write_atomically(path, statistics.to_json(value.statistics))
                return [self._stored("ExampleStatistics", path.name, path)]
            case Trained(framework=name):
                return [self._stored("Model", name, self.folder / name, value.digest)]
            case Evaluated(metrics=metrics):
                return [
                    Artifact("ModelEvaluation", name, properties=dict(own)) for name, own in metrics.items()
                ]
            case Candidate(folder=folder, files=files):
                digests = {name: lineage.digest(own) for name, own in files.items()}
                return [
                    self._stored("ExportedModel", name, folder / name, own) for name, own in digests.items()
                ]
            case Version(folders=folders):
                digests = {
                    n: lineage.digest(repository.read_manifest(own).files) for n, own in folders.items()
                }
                return [
                    self._stored("PushedModel", name, folders[name], own) for name, own in digests.items()
                ]
            case Mapping():
                return [artifact for own in value.values() for artifact in self.described(own)]
        return []

    def _stored(self, type: str, name: str, path: Path, digest: str = "") -> Artifact:
        uri = path.relative_to(self.artifacts).as_posix()
        return Artifact(type, name, uri, digest or repository.file_digest(path))


@contextmanager
def recorded(recipe: Recipe, report: Callable[[str], None]) -> Iterator[Recorder]:
    """Record a run of this recipe until the block ends, with or without an error."""
    artifacts, code = recipe.settings.artifacts, recipe.code
    run = Recorder(artifacts, recipe.folder, recipe.model.spec)
    now, started = datetime.now(UTC), time.monotonic()
    state, reason = "complete", ""
    try:
        yield run
        state = "published" if run.last(Version) else "complete"
    except BaseException as error:
        state, reason = _state(error), str(error) or type(error).__name__
        raise
    finally:
        name = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{recipe.version_fingerprint[:6]}"
        folder, version = run.folder / name, run.last(Version)
        record = Run(
            id=name,
            orchestrator=recipe.orchestrator,
            model=run.spec.name,
            state=state,
            started=now.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            parameters=recipe.parameters,
            code=code,
            executions=tuple(run.executions),
            version=version.number if version else None,
            reason=reason,
            page=(folder / page.FILE).relative_to(artifacts).as_posix(),
        )
        lineage.record(recipe.settings.lineage, record)
        report(f"page: {_write(folder, record, run)}")


def _write(folder: Path, record: Run, run: Recorder) -> Path:
    """Write `gates.json` (every check with its figure, limit and verdict) and the page; returns the page."""
    evaluated, path = run.last(Evaluated), folder / page.FILE
    gates = {
        "passed": not any(check.refuses for check in run.checks),
        "metrics": evaluated.metrics if evaluated else {},
        "checks": [dataclasses.asdict(check) | {"passed": check.passed} for check in run.checks],
    }
    repository.write_atomically(folder / GATES, json.dumps(gates, indent=1) + "\n")
    repository.write_atomically(path, page.render(record, run.spec, run.checks, run.values))
    for file in (GATES, page.FILE):
        # The link is replaced atomically.
        beside = run.folder / f".incoming-{file}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path(folder.name) / file)
        beside.replace(run.folder / file)
    return path


def _state(error: BaseException) -> str:
    if isinstance(error, GateError):
        return "refused"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
