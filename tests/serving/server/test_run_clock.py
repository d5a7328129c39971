"""What counts as a run's own time, on a machine that others use, too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from serving.server.run_clock import RunClock
from serving.server.run_costs import PROOF, SHORT_SECONDS
from serving.server.run_threads import RunThreads
from serving.server.signature import Tensors

from .test_batching import Doubling, batcher, call, x

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells why a thread did not run")
WORK_SECONDS = 4 * SHORT_SECONDS


def work() -> None:
    end = time.thread_time() + WORK_SECONDS
    while time.thread_time() < end:
        pass


def test_what_a_run_has_slept_is_its_own() -> None:
    clock = RunClock()
    time.sleep(2 * SHORT_SECONDS)
    seconds, own = clock.read()
    assert own == seconds > SHORT_SECONDS


def test_what_others_have_had_of_its_core_is_not() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        readings = []
        for _ in range(100):
            clock = RunClock()
            work()
            readings.append(clock.read())
            seconds, own = readings[-1]
            if 1.5 * own < seconds:
                break
        else:
            pytest.fail(f"no run was put aside, of {readings}")
        assert own > WORK_SECONDS / 2
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, cores)


async def test_runs_that_are_put_aside_stay_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunClock, "read", lambda _: (20 * SHORT_SECONDS, SHORT_SECONDS / 20))
    in_threads: list[str] = []

    class Telling(Doubling):
        def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            if threading.current_thread() is not threading.main_thread():
                in_threads.append(threading.current_thread().name)
            return super().run(signature, inputs, outputs)

    with RunThreads(1) as threads:
        target = batcher(Telling(0.0), threads, seconds=1e-6)
        for n in range(2 * PROOF):
            assert await call(target, x(n)) == [2.0 * n]
    assert in_threads == []
    told = target.statistics.runs[1]
    assert told.seconds == pytest.approx(told.count * 20 * SHORT_SECONDS), (
        "what clients have waited for is told"
    )
