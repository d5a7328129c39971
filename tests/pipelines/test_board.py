from __future__ import annotations

import io
import sys

import pytest

from pipelines.cli.progress import watching


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_each_event_is_a_line() -> None:
    lines: list[str] = []
    with watching(lines.append) as watch:
        watch("litert", "starting")
        watch("litert", "ready, version 1, 2.0 s")
    assert lines == ["litert: starting", "litert: ready, version 1, 2.0 s"]


def test_on_a_terminal_a_table_shows_the_last_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    lines: list[str] = []
    with watching(lines.append) as watch:
        watch("litert", "starting")
        watch("tf-serving", "building tandem/tf-serving:0.1.0")
        watch("litert", "ready, version 1, 2.0 s")
    assert lines == []
    last = terminal.getvalue().split("litert")[-1]
    assert "ready, version 1, 2.0 s" in last
    assert "tf-serving" in last
    assert "building tandem/tf-serving:0.1.0" in last
