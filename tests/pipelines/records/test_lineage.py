from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.records import lineage
from pipelines.records.lineage import Artifact, Execution, LineageError, Run

EXAMPLES = Artifact("Examples", "pictures", "data/pictures", "d1")
WEIGHTS = Artifact("Model", "pytorch", "runs/r/pytorch", "d2", {"accuracy": 0.9})


def run(number: int, state: str, version: int | None = None) -> Run:
    return Run(
        id=f"20260101T00000{number}",
        orchestrator="default",
        model="fashion",
        state=state,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.5,
        parameters={"profile": "quick"},
        code={"git_commit": "abc", "fingerprint": "f", "libraries": {}},
        executions=(
            Execution("Trainer", inputs=(EXAMPLES,), outputs=(WEIGHTS,), properties={"framework": "pytorch"}),
            Execution("Evaluator", state, 0.5, inputs=(EXAMPLES, WEIGHTS)),
        ),
        version=version,
        reason="" if version else "because",
    )


def test_a_run_comes_back_as_it_was_recorded(tmp_path: Path) -> None:
    one = run(1, "published", 1)
    path = lineage.record(tmp_path, one)
    assert path == tmp_path / "fashion" / f"{one.id}.json"
    assert lineage.runs(tmp_path, "fashion") == [one]
    assert lineage.runs(tmp_path, "other") == []


def test_what_was_refused_on_the_way_to_a_version(tmp_path: Path) -> None:
    story = ["refused", "published", "complete", "refused", "failed", "published", "refused"]
    versions = iter((1, 2))
    for number, state in enumerate(story):
        lineage.record(tmp_path, run(number, state, next(versions) if state == "published" else None))
    known = lineage.runs(tmp_path, "fashion")
    assert [one.id[-1] for one in lineage.refused_before(known, 1)] == ["0"]
    assert [one.id[-1] for one in lineage.refused_before(known, 2)] == ["3", "4"]
    second = lineage.of_version(known, 2)
    assert second is not None
    assert second.id[-1] == "5"
    assert lineage.of_version(known, 3) is None


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = lineage.record(tmp_path, run(1, "failed"))
    path.write_text("{")
    with pytest.raises(LineageError, match=f"{path.name} cannot be read as a run"):
        lineage.runs(tmp_path, "fashion")
