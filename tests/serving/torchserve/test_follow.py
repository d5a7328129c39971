"""The threads beside TorchServe: swaps, the file that health checks read, the end of a server without a worker."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from socketserver import UnixStreamServer
from unittest.mock import Mock

import pytest

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve import follow
from serving.torchserve.config import ready_marker, staged
from tests.e2e.conftest import until

READY = Path(__file__).parents[3] / "docker" / "bin" / "torchserve-ready"


class Management(http.server.BaseHTTPRequestHandler):
    """A management API with one model, whose worker's state the test sets."""

    worker = "READY"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        described = [{"modelVersion": "1", "workers": [{"status": self.worker}]}]
        self.wfile.write(json.dumps(described).encode())

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """The process that is watched."""
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_server_that_has_no_worker_for_long_is_ended(
    server: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follow.watch(Settings(artifacts=tmp_path, ready_seconds=1), server)
    assert server.wait(10) == -signal.SIGTERM
    assert capsys.readouterr().err == "torchserve: no worker answers for 1 s; starting anew\n"


def test_the_health_check_passes_while_a_worker_answers(
    server: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(artifacts=tmp_path)
    marker = ready_marker(settings)
    marker.parent.mkdir(parents=True)
    (tmp_path / "started").touch()

    def passes() -> bool:
        script = READY.read_text().replace("/tandem/run/torchserve/ready", str(marker))
        script = script.replace("-newer /proc/1", f"-newer {tmp_path / 'started'}")
        return subprocess.run(["sh", "-c", script]).returncode == 0

    with UnixStreamServer(str(tmp_path / "management.sock"), Management) as api:
        threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        (marker.parent / "management").write_text(f"unix:{tmp_path / 'management.sock'}")
        assert not passes()
        watching = threading.Thread(target=follow.watch, args=(settings, server))
        watching.start()
        until(passes, 5)
        monkeypatch.setattr(Management, "worker", "UNLOADING")
        until(lambda: not passes(), 5)
        monkeypatch.setattr(Management, "worker", "READY")
        until(passes, 5)
        server.kill()
        watching.join(10)
        api.shutdown()
    now = time.time()
    for started, renewed, expected in (
        (now - 3, now - 2, True),
        (now - 1, now - 2, False),
        (0, now - 11, False),
    ):
        os.utime(tmp_path / "started", (started, started))
        os.utime(marker, (renewed, renewed))
        assert passes() == expected, "renewed since the container started, and lately"


def test_no_error_ends_the_swaps_and_each_is_told_once(
    server: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = Mock(side_effect=[OSError("unreadable")] * 3 + [KeyError("modelVersion")] * 3 + [None] * 99)
    monkeypatch.setattr(follow, "served_version", failures)
    threading.Timer(1, server.kill).start()
    follow.follow(Settings(), server)
    assert capsys.readouterr().err.splitlines() == [
        "unreadable; a new version is not served",
        "KeyError('modelVersion'); a new version is not served",
    ]


def test_a_version_that_cannot_be_registered_leaves_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(artifacts=tmp_path)
    staged(settings, 2).parent.mkdir(parents=True)
    management = Mock(versions=lambda: [1])
    management.register.side_effect = TargetError("no worker in time")
    management.unregister.side_effect = TargetError("the server is busy")
    monkeypatch.setattr(follow, "Management", lambda *_arguments, **_options: management)
    monkeypatch.setattr(follow, "stage_version", lambda *_arguments: staged(settings, 2).touch())
    with pytest.raises(TargetError, match="no worker in time"):
        follow.swap(settings, 2)
    assert not staged(settings, 2).exists()
