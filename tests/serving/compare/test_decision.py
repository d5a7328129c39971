"""The choice that constraints and a goal lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import targets
from serving.compare import report
from serving.compare.decision import PLACES, STATES, Wish, decide, latest, lines, projects
from serving.compare.report import DEVICE, FAILED, IN_PROCESS, Figure, Report, ReportError

from . import reports
from .reports import row


@pytest.fixture
def measured() -> Report:
    return reports.report(
        row("onnxruntime", "grpc", 1.0, 900, score=0.90, artifact_bytes=3 * 2**20, memory_loaded=90 * 2**20),
        row("litert", "rest", 1.2, 800, score=0.89, artifact_bytes=2**20, memory_loaded=60 * 2**20),
        row("torchserve", "rest", 0.5, 90, score=0.91, artifact_bytes=9 * 2**20, memory_loaded=500 * 2**20),
        row("tfjs", "browser", 4.0, 200, score=0.90, cpu_us=None, memory_loaded=None, memory_idle=50 * 2**20),
        row("tf-serving", "rest", 2.0, 1, state=FAILED, reason="it is gone"),
    )


@pytest.mark.parametrize(
    ("wish", "ranked"),
    [
        (Wish(), ["torchserve", "onnxruntime", "litert", "tfjs"]),
        (Wish(prefer="size"), ["litert", "onnxruntime", "tfjs", "torchserve"]),
        (Wish(prefer="cost"), ["torchserve", "onnxruntime", "litert"]),
        (Wish(prefer="maintenance"), ["onnxruntime", "litert", "tfjs", "torchserve"]),
        (Wish(score=0.90), ["torchserve", "onnxruntime", "tfjs"]),
        (Wish(p99_ms=2.0), ["torchserve", "onnxruntime"]),
        (Wish(memory_mb=64), ["litert", "tfjs"]),
        (Wish(runs_on="browser"), ["tfjs"]),
        (Wish(score=0.99), []),
    ],
)
def test_rows_are_ranked_by_the_goal_among_those_that_keep_every_constraint(
    measured: Report, wish: Wish, ranked: list[str]
) -> None:
    decision = decide(measured, wish)
    assert [row.target for row, _ in decision.ranked] == ranked
    assert len(decision.ranked) + len(decision.ruled_out) == len(measured.rows)


def test_the_figures_that_decided_and_the_constraint_that_ruled_out_are_named(measured: Report) -> None:
    said = lines(decide(measured, Wish(score=0.90, memory_mb=256)))
    assert said[0] == "fashion, version 3, compared at 2026-11-28T00:00:00Z:"
    assert said[1].startswith(
        "1. onnxruntime grpc: p50 1.00 ms, score 0.9000, memory 90 MiB; project: active, last release"
    )
    assert "-  litert rest: score 0.8900, at least 0.9 is wanted" in said
    assert "-  torchserve rest: memory 500 MiB, at most 256 MiB is wanted" in said
    assert "-  tf-serving rest: failed: it is gone" in said
    assert lines(decide(measured, Wish(p99_ms=0.1)))[1].startswith("No row keeps every constraint")


def test_a_row_that_cannot_be_told_from_the_one_above_says_so() -> None:
    rows = [
        row("onnxruntime", "grpc", 1.0, 9),
        row("litert", "rest", 1.05, 9),
        row("torchserve", "rest", 3.0, 9),
    ]
    _, first, second, third = lines(decide(reports.report(*rows), Wish()))
    assert second.endswith("; its latency cannot be told from that of onnxruntime grpc")
    assert "cannot be told" not in first + third


def test_for_a_phone_runtimes_in_process_are_ranked_with_the_scores_of_their_endpoints() -> None:
    own = {"kind": IN_PROCESS, "score": None, "memory_loaded": 0}
    rows = [
        row("litert", "rest", 1.0, 900, score=0.91),
        row("litert", "in process", 0.2, 1, **own),
        row("litert", "in process", 0.1, 1, variant="int8", **own),
        row("executorch", "in process", 0.3, 1, kind=DEVICE, variant="float32", memory_loaded=2**20),
        row("tf-serving", "in process", 0.1, 1, **own),
    ]
    said = lines(decide(reports.report(*rows), Wish(score=0.9, memory_mb=8, runs_on="mobile")))
    assert "not of a phone" in said[1]
    assert said[2].startswith(
        "1. litert in process: p50 0.20 ms, score 0.9100, memory 0 MiB; project: active"
    )
    assert said[3].startswith("2. executorch float32 in process: p50 0.30 ms, score 0.9000")
    assert said[4:] == [
        "-  litert int8 in process: score unknown, at least 0.9 is wanted",
        "-  tf-serving in process: does not run on mobile",
    ]


def test_a_figure_that_is_not_sure_and_a_comparison_that_was_interrupted_say_so() -> None:
    unsure = row("litert", "rest", 1.0, 900, p99=Figure(2.0, 0.1, "too few requests"))
    said = lines(decide(reports.report(unsure, partial=True), Wish(p99_ms=5)))
    assert "interrupted" in said[1]
    assert "p99 2.00 ms (not sure); project" in said[2]


def test_the_newest_report_of_the_model_as_tandem_serves_it_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="there is no report of fashion"):
        latest(tmp_path, "fashion")
    versions: list[dict[str, object]] = [{"version": 7}, {"version": 8}, {"version": 0}, {"model": "other"}]
    for number, changes in enumerate(versions):
        report.save(reports.report(**changes), tmp_path / str(number))
    assert latest(tmp_path, "fashion").version == 8


def test_every_target_is_known_with_its_source() -> None:
    known = projects()
    assert known.pop("as_of").year >= 2026
    assert set(known) == {*targets.NAMES, "executorch"}
    for project in known.values():
        assert project["state"] in STATES
        assert set(project["runs_on"]) <= set(PLACES)
        assert project["source"].startswith("https://")
