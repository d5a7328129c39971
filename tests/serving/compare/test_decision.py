"""The choice that constraints and a goal lead to."""

from __future__ import annotations

import pytest

from serving import targets
from serving.compare.decision import PLACES, STATES, Wish, decide, lines, projects
from serving.compare.report import FAILED, Report

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
        (Wish(runs_on="mobile", score=0.90), ["onnxruntime"]),
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
    assert said[0].startswith(
        "1. onnxruntime grpc: p50 1.00 ms, score 0.9000, memory 90 MiB; project: active, last release"
    )
    assert "-  litert rest: score 0.8900, at least 0.9 is wanted" in said
    assert "-  torchserve rest: memory 500 MiB, at most 256 MiB is wanted" in said
    assert "-  tf-serving rest: exported but failed: it is gone" in said
    assert lines(decide(measured, Wish(p99_ms=0.1)))[0].startswith("No row keeps every constraint")


def test_a_row_that_cannot_be_told_from_the_one_above_says_so() -> None:
    rows = [
        row("onnxruntime", "grpc", 1.0, 9),
        row("litert", "rest", 1.05, 9),
        row("torchserve", "rest", 3.0, 9),
    ]
    first, second, third = lines(decide(reports.report(*rows), Wish()))
    assert second.endswith("; its latency cannot be told from that of onnxruntime grpc")
    assert "cannot be told" not in first + third


def test_every_target_is_known_with_its_source() -> None:
    known = projects()
    assert known.pop("as_of").year >= 2026
    assert set(known) == set(targets.NAMES)
    for project in known.values():
        assert project["state"] in STATES
        assert set(project["runs_on"]) <= set(PLACES)
        assert project["source"].startswith("https://")
