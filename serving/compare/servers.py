"""Servers that run for one comparison: a target's, on free loopback ports, from a folder of artifacts of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from serving.settings import Settings
from serving.targets.base import Target, TargetError

LOG_LINES = 6
"""Of a server that does not start, in its row's reason."""


@dataclass(frozen=True)
class Server:
    """A server that answers: how to reach it, its first process, and the seconds from its start to ready."""

    settings: Settings
    pid: int
    start_seconds: float


@contextmanager
def started(target: Target, settings: Settings, version: int) -> Iterator[Server]:
    """Start a target's server for as long as the block runs.

    `settings.artifacts` has the repository to serve from, and gets what the server writes. Raises `TargetError` with
    the end of its log where it is not ready within `settings.ready_seconds`.
    """
    own = f"{target.name.replace('-', '_')}_"
    fields = [
        f.name for f in dataclasses.fields(settings) if f.name.startswith(own) and f.name.endswith("_port")
    ]
    ports: dict[str, Any] = dict(zip(fields, free_ports(len(fields)), strict=True))
    settings = dataclasses.replace(settings, platform="process", host="127.0.0.1", **ports)
    target.configure(settings)
    launch = target.launch(settings)
    with running(launch.command, launch.environment, settings) as process:
        seconds = process.wait(lambda: target.served_version(settings) == version, settings.ready_seconds)
        yield Server(settings, process.pid, seconds)


@contextmanager
def again(target: Target, settings: Settings, version: int) -> Iterator[Server]:
    """A second server of a deployed target, from the same repository: what it takes to start can be read from it."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
        for shared in ("repository", "web"):
            (Path(folder) / shared).symlink_to(settings.artifacts / shared)
        with started(target, dataclasses.replace(settings, artifacts=Path(folder)), version) as server:
            yield server


@dataclass(frozen=True)
class Process:
    """A process that `running` has started, and its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait(self, ready: Callable[[], bool], patience: float) -> float:
        """Seconds from now until it is ready. Raises `TargetError`."""
        started = time.monotonic()
        while not ready():
            waited = time.monotonic() - started
            if (ended := self.popen.poll() is not None) or waited > patience:
                lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                state = "ended" if ended else "is not ready"
                raise TargetError(f"its server {state} after {waited:.0f} s: {' / '.join(lines)}"[-600:])
            time.sleep(0.02)
        return time.monotonic() - started


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], settings: Settings, folder: Path | None = None
) -> Iterator[Process]:
    """A command's process, in `folder`, for as long as the block runs; then all that it started is ended."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{Path(command[0]).name}-{os.getpid()}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is the comparison's, which ends the server itself.
        popen = subprocess.Popen(
            command, env=os.environ | environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Process(popen, log)
    finally:
        end(popen, settings.stop_seconds)


def end(popen: subprocess.Popen[bytes], patience: float) -> None:
    """Ask a process to stop, and kill what is left of its tree."""
    tree = processes(popen.pid)
    popen.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(patience)
    for process in tree:
        with contextlib.suppress(psutil.Error):
            process.kill()
    popen.wait()


def processes(pid: int) -> list[psutil.Process]:
    """A process and its descendants; empty where there is none."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
