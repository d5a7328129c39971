"""Which platform is taken, and what is said where none of an engine's parts is there."""

from __future__ import annotations

import functools
import os
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from serving import platforms
from serving.platforms import engine
from serving.platforms.base import PlatformError
from serving.settings import Settings


class Engine(BaseHTTPRequestHandler):
    """Answers the one question that is asked before the SDK comes in."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"Version": "99.1"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from one test to the next."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    for name in ("find", "compose"):
        monkeypatch.setattr(engine, name, functools.cache(getattr(engine, name).__wrapped__))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Not tmp_path: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/engine.sock"
        with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            yield
            server.shutdown()
            thread.join()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts commands on a path that has nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


def test_docker_is_taken_where_an_engine_and_compose_answer(
    answering: None, commands: Callable[[str, str], None], tmp_path: Path
) -> None:
    commands("docker", "exit 0")
    platform, why = platforms.choose(Settings(artifacts=tmp_path))
    assert (platform.name, why) == ("docker", "Docker 99.1 answers")


def test_the_old_compose_is_taken_where_the_new_one_is_missing(
    commands: Callable[[str, str], None],
) -> None:
    commands("docker", "exit 1")
    commands("docker-compose", "exit 0")
    assert engine.compose() == ("docker-compose",)


def test_without_compose_processes_are_taken_and_why(
    answering: None, commands: Callable[[str, str], None], tmp_path: Path
) -> None:
    commands("docker", "exit 1")
    platform, why = platforms.choose(Settings(artifacts=tmp_path))
    assert platform.name == "process"
    assert why.startswith("neither `docker compose` nor docker-compose is here")
    with pytest.raises(PlatformError, match="docker-compose-plugin"):
        platforms.choose(Settings(artifacts=tmp_path, platform="docker"))


def test_without_an_engine_processes_are_taken_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nothing.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{nowhere}")
    settings = Settings(artifacts=tmp_path)
    platform, why = platforms.choose(settings)
    assert (platform.name, why) == ("process", f"no container engine answers at {nowhere}")
    with pytest.raises(PlatformError, match="no container engine answers"):
        platforms.choose(replace(settings, platform="docker"))


def test_an_engine_elsewhere_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    with pytest.raises(PlatformError, match="from this machine's disk"):
        engine.find()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_that_one_may_not_use_is_told_apart(answering: None) -> None:
    Path(os.environ["DOCKER_HOST"].removeprefix("unix://")).chmod(0)
    with pytest.raises(PlatformError, match="usermod -aG docker"):
        engine.find()


def test_processes_are_kept_where_they_run_already(
    answering: None,
    commands: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands("docker", "exit 0")
    monkeypatch.setattr("serving.platforms.process.ProcessPlatform.states", lambda *_: {"litert": "running"})
    platform, why = platforms.choose(Settings(artifacts=tmp_path))
    assert (platform.name, why) == ("process", "its targets run already")
