"""A server under measurement: its process tree's CPU time and memory, its start, and its certain end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import psutil

START_SECONDS = 90
STOP_SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server did not start; the message ends with its log."""


def _tree(root: int) -> dict[int, float]:
    """The process ids of a session and of all below it, each with the CPU seconds of its dead children."""
    parents: dict[int, tuple[int, int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                dead = (int(fields[13]) + int(fields[14])) / TICKS
                parents[int(entry.name)] = int(fields[1]), int(fields[3]), dead
    members = {pid for pid, (_, session, _) in parents.items() if session == root or pid == root}
    while more := {pid for pid, (parent, _, _) in parents.items() if parent in members} - members:
        members |= more
    return {pid: parents[pid][2] for pid in members}


def cpu_seconds(root: int) -> float:
    """User and system time of the tree that `root` leads, children that have ended included.

    The clock of a process counts nanoseconds (clock_getcpuclockid(3)); only the dead count in ticks.
    """
    total = 0.0
    for pid, dead in _tree(root).items():
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | 2) + dead
    return total


class Server:
    """A running server that leads a session of its own; leaving its context ends every process of it."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str], cwd: Path) -> None:
        self._log = log
        self._started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_until(self, answers: Callable[[], bool]) -> float:
        """Seconds from the start until `answers`. Raises `ServerError`."""
        while not answers():
            waited = time.monotonic() - self._started
            if self._process.poll() is not None or waited > START_SECONDS:
                state = "ended" if self._process.poll() is not None else "does not answer"
                raise ServerError(f"{state} after {waited:.0f} s; its log ends:\n{self.log_end()}")
            time.sleep(0.01)
        return time.monotonic() - self._started

    def log_end(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])

    def pss(self) -> int:
        """Bytes of memory of the tree, shared pages in proportion."""
        total = 0
        for pid in _tree(self.pid):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        return total

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """SIGTERM to its first process, and SIGKILL to what is left of the tree."""
        members = self._members()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Some leave children behind when they are told to stop.
        for process in members | self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _members(self) -> set[psutil.Process]:
        members = set()
        for pid in _tree(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                members.add(psutil.Process(pid))
        return members
