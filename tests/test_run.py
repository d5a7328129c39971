"""The runner of the tests: what it chooses on which machine, and what it says at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving.settings import Settings
from tests import needs, newest, run
from tests.pipelines.tfx import passed
from tests.run import Outcome, Part

TESTS = """
import pytest
@pytest.mark.skip(reason="no Chromium was found")
def test_skipped(): pass
def test_good(): pass
@pytest.mark.slow
def test_bad(): assert False
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an engine."""
    monkeypatch.setattr(needs, "containers", lambda: "no container engine is installed")
    monkeypatch.setattr(needs, "pods", lambda: "podman is not installed")
    monkeypatch.setattr(newest, "missing", lambda: "no python3.13 with venv is installed")


def test_without_an_engine_the_rest_runs_and_what_is_missing_is_named(bare: None) -> None:
    for what in ("test", "ci", "all"):
        parts, left_out = run.chosen(what, Settings())
        assert parts[:4] == [run.UNITS, run.SLOW, run.BROWSER, run.PROCESSES]
        assert (run.THOROUGH in parts) == (what == "all")
        assert left_out[run.CONTAINERS] == "no container engine is installed"
        assert left_out[run.PODS] == "podman is not installed"
        assert left_out[run.NEWEST] == "no python3.13 with venv is installed"
        assert (run.PINS in parts) == (what != "test")


def test_with_an_engine_the_journey_runs_where_the_targets_would(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("containers", "pods"):
        monkeypatch.setattr(needs, name, lambda: "")
    monkeypatch.setattr(newest, "missing", lambda: "")
    monkeypatch.setattr(passed, "unchanged_since", lambda: "")
    for platform, journey in (("docker", run.CONTAINERS), ("process", run.PROCESSES)):
        parts, left_out = run.chosen("test", replace(Settings(), platform=platform))
        assert parts == [run.UNITS, run.SLOW, run.BROWSER, journey]
        assert set(left_out.values()) == {"make test-all"}
    assert run.TFX in run.chosen("ci", Settings())[0]
    assert run.chosen("all", Settings()) == (run.ALL, {})


def test_in_ci_each_unit_runs_once_and_without_torch_on_the_newest_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newest, "missing", lambda: "")
    parts, _ = run.chosen("ci", Settings())
    assert parts[:3] == [run.TORCH, run.NEWEST, run.SLOW]
    assert parts.count(run.NEWEST) == 1
    assert run.UNITS not in parts
    assert all((run.ROOT / path).exists() for path in run.TORCH.paths)
    assert set(run.TORCH.paths) < set(run.TORCH.command(run.ROOT))


def test_tfx_is_left_out_of_ci_only_where_it_passed_on_the_same_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("containers", "pods"):
        monkeypatch.setattr(needs, name, lambda: "")
    monkeypatch.setattr(passed, "FILE", tmp_path / "passed.txt")
    assert run.TFX in run.chosen("ci", Settings())[0]
    passed.remember()
    assert run.TFX not in run.chosen("ci", Settings())[0]
    assert run.TFX in run.chosen("all", Settings())[0]
    passed.FILE.write_text("0" + passed.FILE.read_text()[1:].replace("1", "2"))
    assert run.TFX in run.chosen("ci", Settings())[0]


def test_it_stops_at_the_first_failure_and_says_what_ran_and_what_did_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    parts = [Part("units", "not slow"), Part("slow tests", "slow"), Part("the journey", "slow")]
    outcome = Outcome(left_out={Part("pods", "podman"): "podman is not installed"})
    run.run(parts, outcome, replace(Settings(), artifacts=tmp_path))
    run.summary(outcome, parts, slowest=30)
    assert outcome.failed == parts[1]
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("==> ran 2 tests in ") for line in said)
    assert any(line.endswith("slow tests  FAILED") for line in said)
    assert "pods: podman is not installed" in said
    assert "the journey: not reached" in said
    assert "1 tests: no Chromium was found" in said
    assert any(line.endswith("test_some::test_good") for line in said)
