"""Records a run of the default runner: every step with what it took, gave and found; at its end its page and lineage.

The steps know nothing of it. Leaves `gates.json` and `index.html` in a folder of the run's own, in that of its
training, which shows its last run's; and the run itself in the lineage store.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

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

GATES = "gates.json"

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


@dataclass
class Recorder:
    """What is known of a run so far. `folder` is its training's, below `artifacts`."""

    artifacts: Path
    folder: Path
    spec: ModelSpec
    executions: list[Execution] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    """What the steps took and gave, in their order."""

    def step(self, type: str, function: Callable[P, R], *values: P.args, **options: P.kwargs) -> R:
        """Call a step, and record its time, its values, its checks and how it ended.

        Raises what the step does, and `GateError` where a check of its result refuses.
        """
        started, result, state = time.monotonic(), None, "complete"
        named = [value for value in values if isinstance(value, str) and value in FRAMEWORKS]
        properties = {"framework": named[0]} if named else {}
        try:
            result = function(*values, **options)
            state = "cached" if getattr(result, "cached", False) else "complete"
            self.require(getattr(result, "checks", ()))
        except GateError as error:
            if result is None:
                self.checks += error.checks
            state = _state(error)
            raise
        except BaseException as error:
            state = _state(error)
            raise
        else:
            return result
        finally:
            self.values += [*values, result]
            inputs = tuple(artifact for value in values for artifact in self.described(value))
            seconds = round(time.monotonic() - started, 3)
            outputs = tuple(self.described(result))
            self.executions.append(Execution(type, state, seconds, inputs, outputs, properties))

    def require(self, checks: Sequence[Check]) -> None:
        """Keep the checks for the record. Raises `GateError` where one refuses."""
        self.checks += checks
        require(checks)

    def value(self, kind: type[V]) -> V:
        """The last value of a kind. Raises `LookupError` where there is none."""
        return self.every(kind)[-1]

    def every(self, kind: type[V]) -> list[V]:
        """The values of a kind."""
        return [value for value in self.values if isinstance(value, kind)]

    def described(self, value: object) -> list[Artifact]:
        """A value as the lineage names it."""
        match value:
            case Dataset():
                return [
                    Artifact("Examples", self.spec.data.name, f"data/{self.spec.data.name}", value.digest)
                ]
            case Schema():
                return [
                    Artifact("Schema", value.path.name, str(value.path), repository.file_digest(value.path))
                ]
            case Published():
                root = self.artifacts / "repository"
                path = repository.statistics_path(root, self.spec.name, value.version)
                return [self._file("ExampleStatistics", f"version {value.version}", path)]
            case Validated():
                path = self.folder / "statistics.json"
                repository.write_atomically(path, statistics.to_json(value.statistics))
                return [self._file("ExampleStatistics", path.name, path)]
            case Trained():
                return [
                    Artifact("Model", value.framework, self._uri(self.folder / value.framework), value.digest)
                ]
            case Evaluated():
                return [
                    Artifact("ModelEvaluation", name, properties=dict(own))
                    for name, own in value.metrics.items()
                ]
            case Candidate():
                return [
                    Artifact("ExportedModel", target, self._uri(value.folder / target), lineage.digest(files))
                    for target, files in value.files.items()
                ]
            case Version():
                return [
                    Artifact(
                        "PushedModel",
                        target,
                        self._uri(folder),
                        lineage.digest(repository.read_manifest(folder).files),
                    )
                    for target, folder in value.folders.items()
                ]
            case Mapping():
                return [artifact for own in value.values() for artifact in self.described(own)]
        return []

    def _file(self, type: str, name: str, path: Path) -> Artifact:
        return Artifact(type, name, self._uri(path), repository.file_digest(path))

    def _uri(self, path: Path) -> str:
        return path.relative_to(self.artifacts).as_posix()


@contextmanager
def recorded(
    run: Recorder,
    orchestrator: str,
    parameters: dict[str, Any],
    code: dict[str, Any],
    report: Callable[[str], None],
) -> Iterator[None]:
    """Write the record of a run at its end, however it ends."""
    now, started = datetime.now(UTC), time.monotonic()
    state, reason = "complete", ""
    try:
        yield
        state = "published" if run.every(Version) else "complete"
    except BaseException as error:
        state, reason = _state(error), str(error) or type(error).__name__
        raise
    finally:
        name = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{code['fingerprint'][:6]}"
        own = run.folder / name
        versions, evaluated = run.every(Version), run.every(Evaluated)
        record = Run(
            id=name,
            orchestrator=orchestrator,
            model=run.spec.name,
            state=state,
            started=now.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            parameters=parameters,
            code=code,
            executions=tuple(run.executions),
            version=versions[-1].number if versions else None,
            reason=reason,
            page=(own / page.FILE).relative_to(run.artifacts).as_posix(),
        )
        lineage.record(run.artifacts / "lineage", record)
        write_gates(own, run.checks, evaluated[-1].metrics if evaluated else {})
        path = page.write(own, record, figures(run))
        for file in (GATES, page.FILE):
            _link(run.folder / file, Path(name) / file)
        report(f"page: {path}")


def figures(run: Recorder) -> page.Figures:
    """What the page shows of a run."""
    validated, evaluated, published = run.every(Validated), run.every(Evaluated), run.every(Published)
    return page.Figures(
        spec=run.spec,
        checks=run.checks,
        statistics=validated[-1].statistics if validated else {},
        published=published[-1] if published else None,
        histories={trained.framework: trained.history for trained in run.every(Trained)},
        metrics=evaluated[-1].metrics if evaluated else {},
    )


def write_gates(folder: Path, checks: Sequence[Check], metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Every check with its figure, limit and verdict, and each framework's test metrics, as `gates.json`."""
    own = [dataclasses.asdict(check) | {"passed": check.passed} for check in checks]
    record = {"passed": not any(check.refuses for check in checks), "metrics": metrics, "checks": own}
    repository.write_atomically(folder / GATES, json.dumps(record, indent=1) + "\n")


def _link(path: Path, to: Path) -> None:
    """Have a path show another file, from one moment to the next."""
    beside = path.with_name(f".incoming-{path.name}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(to)
    beside.replace(path)


def _state(error: BaseException) -> str:
    if isinstance(error, GateError):
        return "refused"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
