"""Several processes behind one port: a parent that serves nothing keeps its workers alive.

The parent holds the sockets, so that no connection is lost that a worker has not accepted. Workers are the same
command again, so that each has its own runtimes and threads.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import multiprocess

from serving.server.metrics import SHARED
from serving.server.siblings import socket_of

log = logging.getLogger("tandem.server")

VARIABLE = "TANDEM_WORKER"
"""In a worker's environment: the descriptors of HTTP's socket, of gRPC's, and of the pipe that ends with the parent."""
SETTLED_SECONDS = 10.0
"""A worker that has shared in the work for so long has started well."""
MOST_FAILURES = 5
"""Starts that fail in a row before the server gives up."""


@dataclass(frozen=True)
class Inherited:
    """What a worker has from its parent."""

    http: socket.socket
    grpc: socket.socket
    parent: int
    """A pipe that becomes readable when the parent is gone."""
    folder: Path
    """What all workers share: their metrics, and what they tell each other."""


def inherited() -> Inherited | None:
    """None where this process is no worker."""
    if VARIABLE not in os.environ:
        return None
    http, grpc, parent = map(int, os.environ[VARIABLE].split(","))
    return Inherited(socket.socket(fileno=http), socket.socket(fileno=grpc), parent, Path(os.environ[SHARED]))


class _Worker:
    """One process, and since when it has shared in the work: how long it takes to start says nothing of its health."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.socket = socket_of(process.pid, folder)
        self._since: float | None = None

    def look(self) -> int | None:
        """Its exit code, None while it lives."""
        if self._since is None and self.socket.exists():
            self._since = time.monotonic()
        return self.process.poll()

    @property
    def settled(self) -> bool:
        """Whether it has started well."""
        return self._since is not None and time.monotonic() - self._since >= SETTLED_SECONDS


def supervise(count: int, http: socket.socket, grpc: socket.socket, grace_seconds: float) -> int:
    """Run `count` workers of this command line on two sockets, until SIGTERM or SIGINT; the exit code.

    A worker that ends is replaced: at once, or after a delay that doubles while they end soon after their start.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reading, writing = (
        os.pipe()
    )  # Never written to: `writing` closes when this process ends, however it ends.
    with tempfile.TemporaryDirectory(prefix="tandem-workers-") as folder:
        environment = {**os.environ, SHARED: folder, VARIABLE: f"{http.fileno()},{grpc.fileno()},{reading}"}
        passed = (http.fileno(), grpc.fileno(), reading)

        def start() -> _Worker:
            command = [sys.executable, *sys.orig_argv[1:]]
            return _Worker(subprocess.Popen(command, env=environment, pass_fds=passed), Path(folder))

        def bury(worker: _Worker) -> None:
            multiprocess.mark_process_dead(worker.process.pid, folder)  # type: ignore[no-untyped-call]
            worker.socket.unlink(missing_ok=True)

        workers = [start() for _ in range(count)]
        failed = _keep(workers, start, bury, stop)
        log.info("stopping %d workers", len(workers))
        # Only the workers hold the sockets now, and each accepts what comes until it closes them.
        http.close()
        grpc.close()
        for worker in workers:
            worker.process.terminate()
        killed = _wait(workers, grace_seconds)
        os.close(writing)
        return 1 if failed or killed else 0


def _keep(
    workers: list[_Worker],
    start: Callable[[], _Worker],
    bury: Callable[[_Worker], None],
    stop: threading.Event,
) -> bool:
    """Replace workers that end, until `stop`; whether it was given up."""
    failures = 0
    while not stop.wait(0.1):
        for index, worker in enumerate(workers):
            code = worker.look()
            if code is None:
                continue
            bury(worker)
            failures = 0 if worker.settled else failures + 1
            if failures >= MOST_FAILURES:
                log.error(
                    "a worker ended with %d; %d have ended soon after their start: giving up", code, failures
                )
                workers.remove(worker)
                return True
            delay = 0.0 if failures <= 1 else 0.1 * 2**failures
            log.warning(
                "a worker (%d) ended with %d; another starts in %g s", worker.process.pid, code, delay
            )
            if stop.wait(delay):
                workers.remove(worker)
                return False
            workers[index] = start()
            log.info("worker %d has started", workers[index].process.pid)
    return False


def _wait(workers: Sequence[_Worker], grace_seconds: float) -> bool:
    """Let workers end; whether one had to be killed or ended badly."""
    end = time.monotonic() + 2 * grace_seconds + 5
    bad = False
    for worker in workers:
        try:
            code = worker.process.wait(max(0.0, end - time.monotonic()))
            # One that was still starting, and so held no request, ends by the signal itself.
            bad |= code not in (0, -signal.SIGTERM)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
            bad = True
    return bad
