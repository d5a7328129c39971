"""A run of the default runner while it goes on: its steps, checks and figures; at its end, however it ends, its record.

Leaves `gates.json` and `index.html` in a folder of the run's own, in that of its training, which shows its last run's;
and the run itself in the lineage store.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.base import ModelSpec
from pipelines import gates, lineage, page
from pipelines.gates import Check, GateError
from pipelines.lineage import Artifact, Execution, Run
from pipelines.page import Figures
from pipelines.rollout import Report
from serving import repository

GATES = "gates.json"


@dataclass
class Step:
    """One step while it goes on: what it writes is put into `outputs`."""

    outputs: list[Artifact] = field(default_factory=list)
    state: str = "complete"


@dataclass
class Recorder(Figures):
    """What is known of a run so far."""

    executions: list[Execution] = field(default_factory=list)
    batched: Mapping[str, bool] = field(default_factory=dict)
    """By target: whether rows of several requests may share a run of its artifact."""
    version: int | None = None

    @contextmanager
    def step(self, type: str, inputs: Iterable[Artifact] = (), **properties: object) -> Iterator[Step]:
        """Record a step of the pipeline with its time, and how it ended."""
        started, step = time.monotonic(), Step()
        try:
            yield step
        except BaseException as error:
            step.state = _state(error)
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            own = Execution(type, step.state, seconds, tuple(inputs), tuple(step.outputs), properties)
            self.executions.append(own)

    def require(self, checks: list[Check]) -> None:
        """Keep the checks for the record. Raises `GateError` where one failed."""
        self.checks += checks
        gates.require(checks)


@contextmanager
def recording(
    artifacts: Path,
    folder: Path,
    spec: ModelSpec,
    parameters: dict[str, Any],
    code: dict[str, Any],
    report: Report,
    orchestrator: str = "default",
) -> Iterator[Recorder]:
    """A run that is recorded at its end. `folder` is its training's, below `artifacts`."""
    now, started = datetime.now(UTC), time.monotonic()
    recorder, state, reason = Recorder(spec.classes), "complete", ""
    try:
        yield recorder
        state = "complete" if recorder.version is None else "published"
    except BaseException as error:
        state, reason = _state(error), str(error) or type(error).__name__
        raise
    finally:
        name = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{code['fingerprint'][:6]}"
        own = folder / name
        run = Run(
            id=name,
            orchestrator=orchestrator,
            model=spec.name,
            state=state,
            started=now.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            parameters=parameters,
            code=code,
            executions=tuple(recorder.executions),
            version=recorder.version,
            reason=reason,
            page=(own / page.FILE).relative_to(artifacts).as_posix(),
        )
        lineage.record(artifacts / "lineage", run)
        write_gates(own, recorder.checks, recorder.metrics)
        path = page.write(own, run, recorder)
        for file in (GATES, page.FILE):
            _link(folder / file, Path(name) / file)
        report(f"page: {path}")


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
