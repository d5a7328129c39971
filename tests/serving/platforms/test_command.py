"""Commands that take long, and those that run beside a training: awaited at the end, ended with a block that fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from serving.platforms import command
from serving.platforms.base import PlatformError
from serving.platforms.command import beside


def test_lines_are_logged_and_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    assert command.run(["sh", "-c", "echo one; echo two >&2; exit 3"], tmp_path / "log", lines.append) == 3
    assert lines == ["one\n", "two\n"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_report_that_fails_ends_the_command(tmp_path: Path) -> None:
    def report(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.run(["sh", "-c", f"echo $$ >{tmp_path}/pid; echo; exec sleep 60"], tmp_path / "log", report)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_failure_beside_is_known_during_the_block_and_raised_at_its_end() -> None:
    def work() -> None:
        raise PlatformError("no disk")

    known = []
    told = threading.Event()

    def block() -> None:
        with beside(work, told.set) as check:
            assert told.wait(5)
            try:
                check()
            except PlatformError as error:
                known.append(str(error))

    with pytest.raises(PlatformError, match="no disk"):
        block()
    assert known == ["no disk"]


def test_a_block_that_fails_ends_what_runs_beside_it(tmp_path: Path) -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            command.run(["sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 60"], tmp_path / "log")
        except PlatformError as error:
            ended.append(str(error))

    def block() -> None:
        with beside(work, lambda: ended.append("told as a failure of its own")):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert ended == [f"SIGTERM ended `sh`; see {tmp_path / 'log'}"]
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_after_a_block_that_fails_no_command_begins(tmp_path: Path) -> None:
    ended: list[str] = []

    def work() -> None:
        time.sleep(0.2)
        try:
            command.run(["sleep", "60"], tmp_path / "log")
        except PlatformError as error:
            ended.append(str(error))

    with pytest.raises(KeyboardInterrupt), beside(work, lambda: None):
        raise KeyboardInterrupt
    assert ended == ["`sleep` is not run: the work beside it has failed"]
