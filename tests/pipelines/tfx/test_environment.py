"""The environment of TFX, and the error if there is none."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.tfx import environment
from pipelines.tfx.environment import Container, Native
from serving.platforms import engine
from serving.platforms.base import PlatformError
from serving.settings import Settings


def no_engine() -> tuple[str, str]:
    raise PlatformError("no container engine answers at /nowhere")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
    """A Linux machine with this glibc, with or without Python 3.13, without an engine."""

    def be(glibc: str, python: bool) -> None:
        monkeypatch.setattr(engine, "find", no_engine)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", glibc))
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if python else None)

    return be


@pytest.mark.parametrize(
    ("glibc", "python", "missing"),
    [
        ("2.36", True, "this machine has glibc 2.36, and ml-metadata wants 2.39"),
        ("2.41", False, "no python3.13 is on the PATH"),
    ],
)
def test_where_it_can_run_nowhere_one_error_says_what_is_missing(
    machine: Callable[[str, bool], None], glibc: str, python: bool, missing: str
) -> None:
    machine(glibc, python)
    with pytest.raises(PlatformError) as caught:
        environment.choose(Settings())
    for words in ("no container engine answers at /nowhere", missing, "make pipeline"):
        assert words in str(caught.value)


def test_without_an_engine_it_runs_natively_where_glibc_allows(machine: Callable[[str, bool], None]) -> None:
    machine("2.41", True)
    assert isinstance(environment.choose(Settings()), Native)
    with pytest.raises(PlatformError, match="no container engine"):
        environment.choose(dataclasses.replace(Settings(), platform="docker"))


def test_an_engine_comes_first_unless_processes_are_wanted(
    machine: Callable[[str, bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("2.41", True)
    monkeypatch.setattr(engine, "find", lambda: ("unix:///engine", "27"))
    monkeypatch.setattr(Container, "find", classmethod(lambda cls: cls("", "1:1")))
    found = environment.choose(Settings())
    assert isinstance(found, Container)
    request: Any = SimpleNamespace(server_image="", folder=Path("/nowhere"))
    monkeypatch.setattr(environment, "_hand_over", lambda *_: None)
    with found.command(Settings(), request) as command:
        assert command[:3] == ["docker", "--host=unix:///engine", "run"], "not that of another context"
    assert isinstance(environment.choose(dataclasses.replace(Settings(), platform="process")), Native)
