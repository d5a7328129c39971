"""What is made while models train: told line by line, awaited at the end, ended with the block that fails."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest

from serving.platforms import background
from serving.platforms.base import PlatformError, Watch
from serving.settings import Settings


def make(settings: Settings, targets: Sequence[str], watch: Watch) -> None:
    time.sleep(0.3)
    watch(targets[0], f"built for {settings.project}")


def fail(settings: Settings, targets: Sequence[str], watch: Watch) -> None:
    raise PlatformError("no disk")


def crash(settings: Settings, targets: Sequence[str], watch: Watch) -> None:
    os._exit(7)


def wait(settings: Settings, targets: Sequence[str], watch: Watch) -> None:
    watch("pid", str(os.getpid()))
    time.sleep(60)


def test_what_goes_on_is_told_and_awaited() -> None:
    told: list[str] = []
    settings = Settings(project="other")
    with background.making(
        settings, ["litert"], lambda name, text: told.append(f"{name}: {text}"), make
    ) as check:
        check()
    assert told == ["litert: built for other"]


def test_a_failure_is_known_during_the_block_and_raised_at_its_end() -> None:
    told: list[str] = []
    known = []

    def block() -> None:
        with background.making(Settings(), [], lambda _name, text: told.append(text), fail) as check:
            while not told:
                time.sleep(0.01)
            try:
                check()
            except PlatformError as error:
                known.append(str(error))

    with pytest.raises(PlatformError, match="no disk"):
        block()
    assert known == ["no disk"]


def test_a_process_that_ends_by_itself_is_an_error() -> None:
    with (
        pytest.raises(PlatformError, match="their process ended with 7"),
        background.making(Settings(), [], lambda *_: None, crash),
    ):
        pass


def test_a_block_that_fails_ends_it() -> None:
    told: list[str] = []

    def block() -> None:
        with background.making(Settings(), [], lambda _name, text: told.append(text), wait):
            while not told:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    with pytest.raises(ProcessLookupError):
        os.kill(int(told[0]), 0)
