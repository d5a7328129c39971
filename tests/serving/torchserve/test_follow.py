import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.torchserve import follow


def test_a_server_that_has_no_worker_for_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["sleep", "60"]) as server:
        monkeypatch.setattr(os, "getppid", lambda: server.pid)
        monkeypatch.setattr(sys, "argv", ["follow", str(server.pid)])
        monkeypatch.setattr(follow, "POLL_SECONDS", 0.1)
        monkeypatch.setenv("TANDEM_ARTIFACTS", str(tmp_path))
        monkeypatch.setenv("TANDEM_READY_SECONDS", "1")
        follow.main()
        assert server.wait(10) == -signal.SIGTERM
    assert capsys.readouterr().err == "torchserve: no worker answers for 1 s; starting anew\n"
