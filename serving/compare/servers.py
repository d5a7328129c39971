"""Servers of a comparison, on free loopback ports, each with its own folder of artifacts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from serving.compare.resources import processes
from serving.settings import Settings
from serving.targets.base import Target, TargetError, port_setting

LOG_LINES = 6
"""Lines of a failed server's log in its row's reason."""


@dataclass(frozen=True)
class Server:
    """A ready server: its settings, its first process, and the seconds from its start to ready."""

    settings: Settings
    pid: int
    start_seconds: float


def started(target: Target, settings: Settings, version: int) -> AbstractContextManager[Server]:
    """Run a target's server during the block, with the repository and the files of the server in `settings.artifacts`.

    Raises `TargetError` with the end of its log if it is not ready within `settings.ready_seconds`.
    """
    names = [port_setting(target.name, purpose) for purpose in target.container.ports]
    ports: dict[str, Any] = dict(zip(names, free_ports(len(names)), strict=True))
    settings = dataclasses.replace(settings, platform="process", host="127.0.0.1", **ports)
    target.configure(settings)
    launch = target.launch(settings)

    def ready() -> bool:
        return target.served_version(settings) == version

    return running(launch.command, launch.environment, settings, ready, settings.ready_seconds)


@contextmanager
def again(target: Target, settings: Settings, version: int) -> Iterator[Server]:
    """Run a second server of a deployed target, to measure its start."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
        for shared in ("repository", "web"):
            (Path(folder) / shared).symlink_to(settings.artifacts / shared)
        with started(target, dataclasses.replace(settings, artifacts=Path(folder)), version) as server:
            yield server


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    settings: Settings,
    ready: Callable[[], bool],
    patience: float,
    folder: Path | None = None,
) -> Iterator[Server]:
    """Run a command in `folder` until it is `ready` and the block ends, then end its process tree.

    Raises `TargetError` if it is not ready within `patience` seconds.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{Path(command[0]).name}-{os.getpid()}.log"
    with log.open("wb") as output:
        # In its own session: at Ctrl-C the comparison ends the server.
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    started = time.monotonic()
    try:
        while not ready():
            waited = time.monotonic() - started
            if (ended := process.poll() is not None) or waited > patience:
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                state = "ended" if ended else "is not ready"
                raise TargetError(f"its server {state} after {waited:.0f} s: {' / '.join(lines)}"[-600:])
            time.sleep(0.02)
        yield Server(settings, process.pid, time.monotonic() - started)
    finally:
        _end(process, settings.stop_seconds)


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Terminate a process, and kill the rest of its tree."""
    tree = processes(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    for left in tree:
        with contextlib.suppress(psutil.Error):
            left.kill()
    process.wait()


def free_ports(count: int) -> list[int]:
    """Return free ports of loopback."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
