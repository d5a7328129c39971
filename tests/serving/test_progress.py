"""What a user sees while waiting: lines in a log, a table on a terminal."""

from __future__ import annotations

import io
import sys
import time

import pytest

from serving import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.showing({"export tfjs": 17}):
        progress.say("export tfjs")
        with progress.watching() as watch:
            watch("litert", "starting")
            watch("litert", "ready, version 1, 2.0 s")
        with progress.waiting("npm", "fetching TensorFlow.js", usually=120):
            pass
    assert capsys.readouterr().out.splitlines() == [
        "==> export tfjs (usually 17 s)",
        "==> litert: starting",
        "==> litert: ready, version 1, 2.0 s",
        "==> npm: fetching TensorFlow.js (usually 2 min)",
    ]


def test_a_log_is_never_silent_for_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    with progress.showing():
        progress.say("gates: parity")
        time.sleep(0.8)
        with progress.waiting("tensorflow", "training") as wait:
            wait.advance("epoch 1 of 3", 1, 3)
            time.sleep(0.8)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("    gates: parity, ") for line in lines)
    assert any(line.startswith("    tensorflow: epoch 1 of 3, ") for line in lines)


def test_what_was_said_while_something_else_goes_on_is_shown_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    with progress.showing(), progress.waiting("images", "step 1 of 9") as images:
        progress.say("train pytorch")
        images.step("step 2 of 9")
        time.sleep(0.8)
    lines = capsys.readouterr().out.splitlines()
    for reminder in ("    train pytorch, ", "    images: step 2 of 9, "):
        assert any(line.startswith(reminder) for line in lines), reminder


def test_a_share_tells_what_is_left() -> None:
    wait = progress.Wait("data", "downloading", since=100.0)
    wait.advance("1 of 4 files", 1, 4)
    assert wait.duration(now=140.0) == "40 s, about 2 min left"


def test_on_a_terminal_what_ended_are_lines_and_the_rest_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with progress.showing():
        progress.say("platform process")
        with progress.watching() as watch:
            watch("litert", "starting")
            watch("tf-serving", "building tandem.invalid/tf-serving:0.1.0")
            watch("litert", "ready, version 1, 2.0 s")
            time.sleep(0.5)
    shown = terminal.getvalue()
    after = shown.split("==> litert: ready, version 1, 2.0 s")[1]
    assert "building tandem.invalid/tf-serving:0.1.0" in after
    assert "starting" not in after


def test_without_a_display_a_wait_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.waiting("npm", "fetching"):
        pass
    assert capsys.readouterr().out == "==> npm: fetching\n"
