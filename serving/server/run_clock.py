"""How long a run takes, and how long it would have taken had others not had its core."""

from __future__ import annotations

import resource
import sys
import time

from serving.server import run_costs


class RunClock:
    """Started with a run, in its thread; read in the same one."""

    __slots__ = ("_usage", "start")

    def __init__(self) -> None:
        self.start = time.perf_counter()
        if sys.platform == "linux":
            self._usage = resource.getrusage(resource.RUSAGE_THREAD)

    def read(self) -> tuple[float, float]:
        """Seconds since the start, and those of them that are the run's own: it worked, or waited for what it needs.

        A thread that has never slept of its own accord was at work, or else put aside, for other threads or because
        the cgroup's quota was used up: a run in another thread would have been, too. Where it has slept, for a lock or
        for other threads of the run, all seconds are its own; so they are where the run is short all the same, and
        where the system does not tell (Linux does).
        """
        seconds = time.perf_counter() - self.start
        if sys.platform == "linux" and seconds >= run_costs.SHORT_SECONDS:
            usage, before = resource.getrusage(resource.RUSAGE_THREAD), self._usage
            if usage.ru_nvcsw == before.ru_nvcsw:
                worked = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
                return seconds, min(seconds, worked)
        return seconds, seconds
