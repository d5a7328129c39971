"""Processes tell, return and fail here, and none outlives this one. Each imports this file, which imports little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from pipelines import training
from pipelines.training import workers
from pipelines.training.record import TrainingError
from pipelines.training.workers import LostError
from serving import progress

SCRIPT = """
import signal

# A shell's background commands, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipelines.training import workers
from tests.pipelines.training.test_workers import sleep
workers.run(1, sleep)
"""


def ranked(failing: int, error: Exception) -> int:
    rank = int(os.environ["LOCAL_RANK"])
    progress.note(f"this is {rank}")
    if rank == failing:
        raise error
    return rank * 10


def test_processes_tell_and_return_here_and_their_errors_are_raised_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = TrainingError("the loss is nan")
    assert workers.run(2, ranked, -1, error) == [0, 10]
    assert {"this is 0", "this is 1"} == {line.strip() for line in capsys.readouterr().out.splitlines()}
    with pytest.raises(TrainingError, match="the loss is nan"):
        workers.run(2, ranked, 1, error)
    with pytest.raises(LostError, match="its process ended with status 1, as it says above"):
        workers.run(1, ranked, 0, ValueError("a fault of ours"))
    assert "ValueError: a fault of ours" in capsys.readouterr().err


def hold(count: int) -> int:
    np.ones(count, np.uint8)
    return training._peak_bytes()


def test_the_most_memory_is_read_in_the_process() -> None:
    (more,), (less,) = (workers.run(1, hold, count) for count in (2**26, 0))
    assert more - less == pytest.approx(2**26, rel=0.1)


def sleep() -> None:
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(60)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_none_outlives_a_killed_parent_or_tells_of_ctrl_c(stop: signal.Signals) -> None:
    command = [sys.executable, "-c", SCRIPT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as parent:  # type: ignore[call-overload]
        child = psutil.Process(int(parent.stdout.readline()))
        if stop == signal.SIGINT:
            os.killpg(parent.pid, stop)
        else:
            parent.kill()
        assert child.wait(20) is None
        # Of this process, but not of the one that it ended.
        assert parent.stderr.read().count("Traceback") == (stop == signal.SIGINT)
