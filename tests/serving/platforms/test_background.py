"""What is made while models train: told line by line, awaited at the end, ended with the block that fails."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from serving.platforms import background
from serving.platforms.base import PlatformError
from serving.settings import Settings


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that stands in for the making of images; it notes its pid."""
    script = tmp_path / "making.py"
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec {sys.executable} {script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return script


def test_what_goes_on_is_told_and_awaited(child: Path) -> None:
    child.write_text(
        "import os, time; time.sleep(0.3); assert os.environ['TANDEM_MONITORING'] == '0'\n"
        """print('{"name": "litert", "text": "built in 1 s"}')"""
    )
    told: list[str] = []
    with background.making(
        Settings(), ["litert"], lambda name, text: told.append(f"{name}: {text}")
    ) as check:
        check()
    assert told == ["litert: built in 1 s"]


def test_a_failure_is_known_during_the_block_and_raised_at_its_end(child: Path) -> None:
    child.write_text("""print('{"error": "no disk"}', flush=True); raise SystemExit(1)""")
    told: list[str] = []
    known = []

    def make() -> None:
        with background.making(Settings(), [], lambda _name, text: told.append(text)) as check:
            while not told:
                time.sleep(0.01)
            try:
                check()
            except PlatformError as error:
                known.append(str(error))

    with pytest.raises(PlatformError, match="no disk"):
        make()
    assert known == ["no disk"]


def test_a_block_that_fails_ends_it(child: Path, tmp_path: Path) -> None:
    child.write_text("import time; time.sleep(60)")

    def make() -> None:
        with background.making(Settings(), [], lambda *_: None):
            while not (tmp_path / "pid").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
