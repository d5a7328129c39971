"""The end of the launcher, with `sleep` for Java and for the trial of a version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from serving.settings import Settings
from serving.torchserve.config import state
from serving.torchserve.launch import STOPPED
from tests.e2e.conftest import until

SCRIPT = """
import os, subprocess
from serving.torchserve import launch
launch.prepare = lambda settings: (["sleep", "60"], dict(os.environ))
launch.follow = lambda *arguments: subprocess.run(["sleep", "61"])
launch.watch = lambda *arguments: None
launch.main()
"""


def test_a_stop_ends_the_trial_of_a_version_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    state(Settings(artifacts=tmp_path)).mkdir(parents=True)
    environment = os.environ | {"TANDEM_ARTIFACTS": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stderr=subprocess.PIPE, text=True
    ) as launcher:
        parent = psutil.Process(launcher.pid)
        until(lambda: [child.name() for child in parent.children()] == ["sleep"] * 2, 20)
        children = parent.children()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            launcher.send_signal(number)
        said = launcher.communicate(timeout=20)[1]
    assert (launcher.returncode, said.splitlines()[-1]) == (128 + signal.SIGTERM, STOPPED)
    assert not psutil.wait_procs(children, timeout=5)[1]
