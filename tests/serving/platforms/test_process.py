"""Real processes under a real supervisord; the servers are Python's own http.server."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.platforms import doctor
from serving.platforms.base import PlatformError
from serving.platforms.process import ProcessPlatform
from serving.settings import Settings
from serving.targets.base import Launch
from tests.serving.gateway import free_ports

PLATFORM = ProcessPlatform()


def ignore(_name: str, _state: str) -> None:
    """Nobody watches."""


@dataclass
class WebServer:
    """Answers with the files of a folder, once it is up."""

    folder: Path
    port: int
    name: str = "web-server"
    greeting: str = "100 %"

    def ports(self, settings: Settings) -> dict[str, int]:
        return {"HTTP": self.port}

    def configure(self, settings: Settings) -> None:
        pass

    def launch(self, settings: Settings) -> Launch:
        script = (
            "import http.server, os, sys; os.chdir(sys.argv[1]);"
            "open('greeting', 'w').write(os.environ['GREETING']); print('up, said the \"server\"', flush=True);"
            "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[2])),"
            " http.server.SimpleHTTPRequestHandler).serve_forever()"
        )
        command = [sys.executable, "-c", script, str(self.folder), str(self.port)]
        return Launch(command, {"GREETING": self.greeting})

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/greeting", timeout=2) as answer:
                return bool(answer.read().decode() == self.greeting)
        except OSError:
            return False


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = replace(Settings(), artifacts=tmp_path / 'with 100 % "space"', stop_seconds=3)
    yield settings
    PLATFORM.down(settings)


@pytest.fixture
def server(tmp_path: Path) -> WebServer:
    folder = tmp_path / "files"
    folder.mkdir()
    return WebServer(folder, *free_ports(1))


def test_up_states_log_and_down(settings: Settings, server: WebServer) -> None:
    assert PLATFORM.states(settings) == {}
    assert PLATFORM.up(settings, [server], ignore) == ["web-server"]  # type: ignore[list-item]
    until(server.answers)
    until(lambda: PLATFORM.states(settings)["web-server"].state == "running")
    assert list(doctor.quick(replace(settings, platform="process")))[3:], "the ports are told"
    state = PLATFORM.states(settings)["web-server"]
    assert state.memory is not None
    assert state.memory > 2**20
    assert next(PLATFORM.log(settings, "web-server", 50, follow=False)) == 'up, said the "server"\n'
    assert PLATFORM.down(settings) is True
    assert not server.answers()
    assert state.pid is not None
    assert not psutil.pid_exists(state.pid)
    assert PLATFORM.down(settings) is False


@pytest.mark.slow
def test_up_again_restarts_only_what_is_to_run_differently(
    settings: Settings, server: WebServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = WebServer(tmp_path / "other", *free_ports(1), name="other")
    PLATFORM.up(settings, [server, other], ignore)  # type: ignore[list-item]
    until(lambda: server.answers() and other.answers())
    until(lambda: all(s.state == "running" for s in PLATFORM.states(settings).values()))
    before = PLATFORM.states(settings)
    assert PLATFORM.up(settings, [server, other], ignore) == []  # type: ignore[list-item]
    other.greeting = "changed"
    assert PLATFORM.up(settings, [server, other], ignore) == ["other"]  # type: ignore[list-item]
    until(other.answers)
    after = PLATFORM.states(settings)
    assert after["web-server"].pid == before["web-server"].pid
    assert after["other"].pid != before["other"].pid


def test_a_killed_server_comes_back(settings: Settings, server: WebServer) -> None:
    PLATFORM.up(settings, [server], ignore)  # type: ignore[list-item]
    until(lambda: server.answers() and PLATFORM.states(settings)["web-server"].state == "running")
    pid = PLATFORM.states(settings)["web-server"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: PLATFORM.states(settings)["web-server"].pid not in (None, pid) and server.answers())


@pytest.mark.slow
def test_servers_of_a_killed_supervisor_are_ended(settings: Settings, server: WebServer) -> None:
    def supervisor() -> int:
        return int((settings.run / "supervisord.pid").read_text())

    PLATFORM.up(settings, [server], ignore)  # type: ignore[list-item]
    until(lambda: server.answers() and PLATFORM.states(settings)["web-server"].state == "running")
    pid = PLATFORM.states(settings)["web-server"].pid
    os.kill(supervisor(), signal.SIGKILL)
    until(lambda: PLATFORM.states(settings) == {})
    assert pid is not None
    assert psutil.pid_exists(pid), "the orphan lives on, and holds the port"
    assert PLATFORM.up(settings, [server], ignore) == ["web-server"]  # type: ignore[list-item]
    until(lambda: server.answers() and PLATFORM.states(settings)["web-server"].state == "running")
    assert PLATFORM.states(settings)["web-server"].pid != pid
    os.kill(supervisor(), signal.SIGKILL)
    until(lambda: PLATFORM.states(settings) == {})
    assert PLATFORM.down(settings) is True
    assert not server.answers()


def test_a_busy_port_names_its_holder_and_the_setting(settings: Settings, server: WebServer) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        busy = replace(settings, tfjs_port=port)
        with pytest.raises(PlatformError) as failure:
            PLATFORM.up(busy, [replace(server, port=port)], ignore)  # type: ignore[list-item]
    message = str(failure.value)
    assert f"port {port} is wanted for web-server (HTTP)" in message
    assert f"process {os.getpid()}" in message
    assert "TANDEM_TFJS_PORT=<port>" in message
    assert PLATFORM.states(busy) == {}


def test_a_server_that_cannot_start_is_failed_in_the_end(settings: Settings, server: WebServer) -> None:
    PLATFORM.up(settings, [replace(server, folder=server.folder / "missing")], ignore)  # type: ignore[list-item]
    until(lambda: PLATFORM.states(settings)["web-server"].state in ("restarting", "failed"))
    assert "FileNotFoundError" in "".join(PLATFORM.log(settings, "web-server", 20, follow=False))


def test_monitoring_is_refused_rather_than_left_out(settings: Settings, server: WebServer) -> None:
    with pytest.raises(PlatformError, match="PLATFORM=docker, or leave MONITORING out"):
        PLATFORM.prepare(replace(settings, monitoring=True), [server], ignore)  # type: ignore[list-item]


def test_a_log_is_followed_into_the_file_that_replaces_it(settings: Settings) -> None:
    log = settings.logs / "tfjs.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    lines = PLATFORM.log(settings, "tfjs", 1, follow=True)
    assert next(lines) == "two\n"
    log.rename(log.with_suffix(".log.1"))
    log.write_text("three\n")
    assert next(lines) == "three\n"
    lines.close()  # type: ignore[attr-defined]


def test_a_folder_that_supervisord_cannot_read_is_named(settings: Settings, server: WebServer) -> None:
    odd = replace(settings, artifacts=settings.artifacts / "c #1")
    with pytest.raises(PlatformError, match="c #` as a comment; take folders without"):
        PLATFORM.up(odd, [server], ignore)  # type: ignore[list-item]


def test_no_log_is_an_error(settings: Settings) -> None:
    with pytest.raises(PlatformError, match="tfjs has no log yet"):
        list(PLATFORM.log(settings, "tfjs", 5, follow=False))
