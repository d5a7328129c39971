"""The process that sends load, job by job; it is ended if one takes too long. Its own CPU time is measured, too."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from models.signature import Arrays, Signature, joined, rows
from serving import targets
from serving.compare import endpoints, load, local, resources
from serving.settings import Settings
from serving.targets.base import Client

ANSWERS = "answers"
KEPT = (local.IN_PROCESS, "browser")
"""Protocols whose clients take seconds to open: they stay open, each in its own generator."""
WARM_UP = 5
"""Requests before the measurement, for connections and new shapes."""
PATIENCE_SECONDS = 60.0
"""Time limit of a generator beyond its readings: start, warm-up, waiting requests."""
CLOSE_SECONDS = 5.0
"""Time for a generator to close its clients, which may have a browser or temporary files."""


class GeneratorError(Exception):
    """A job failed; the message says why."""


@dataclass(frozen=True)
class Job:
    """A job: the load, and its receiver, a target's name, an address of `endpoints`, or a protocol of `local`."""

    settings: Settings
    """Settings of the server."""
    target: str
    protocol: str
    samples: Path
    """An .npz of the model's inputs by name."""
    scenario: str
    """`answers`, or a scenario of LoadGen."""
    seconds: float = 1.0
    rate: float = 0.0
    """Requests that are offered a second."""
    target_ms: float = 0.0
    connections: int = 1
    rows: int = 1
    """Samples in one request."""
    pid: int = 0
    """The server's process, for its CPU time; 0: none."""
    signature: dict[str, Any] = field(default_factory=dict)
    """The signature, for addresses without metadata."""

    def read(self) -> Arrays:
        """Read the samples."""
        # The comparison has written them; texts are objects.
        with np.load(self.samples, allow_pickle=True) as stored:
            return {name: stored[name] for name in stored.files}


@dataclass(frozen=True)
class Result:
    """The result of a job. CPU times are in microseconds a request."""

    reading: load.Reading | None = None
    answers: Arrays = field(default_factory=dict)
    cpu_us: float | None = None
    generator_us: float | None = None
    memory: int | None = None
    """Bytes that a model in this process added to it."""


class Generator:
    """A process that runs jobs until it is closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=[theirs], daemon=True)
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        """Return True if the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process after it has closed its clients, or without that if it is still busy."""
        self._pipe.close()
        self._process.join(CLOSE_SECONDS)
        self._process.kill()
        self._process.join()

    def do(self, job: Job) -> Result:
        """Run a job. Raises `GeneratorError` with its error, or if it takes too long: then the process is ended."""
        allowed = load.LONGEST * job.seconds + PATIENCE_SECONDS
        try:
            self._pipe.send(job)
            if not self._pipe.poll(allowed):
                self.close()
                raise GeneratorError(f"no result within {allowed:.0f} s: requests get no answer")
            found: Result | GeneratorError = self._pipe.recv()
        except (EOFError, ConnectionError):
            self.close()
            raise GeneratorError("the generator has ended without a word") from None
        if isinstance(found, GeneratorError):
            raise found
        return found


def serve(pipe: Connection) -> None:
    """Run the jobs from a pipe until it is closed, and send their results or `GeneratorError` back."""
    # At Ctrl-C the comparison closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Runtimes, above all TensorFlow, print lines.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # A pause of 100 ms would count as the server's.
    gc.disable()
    kept: list[Client] = []
    with ExitStack() as until_closed:
        while True:
            try:
                job: Job = pipe.recv()
            except EOFError:
                break
            gc.collect()
            with ExitStack() as opened:
                try:
                    clients = kept or [
                        opened.enter_context(closing(connect(job))) for _ in range(job.connections)
                    ]
                    if job.protocol in KEPT:
                        kept = clients
                        until_closed.push(opened.pop_all())
                    found: Result | GeneratorError = work(job, clients)
                except Exception as error:  # noqa: BLE001 - any error of a client belongs to its row
                    found = GeneratorError(f"{type(error).__name__}: {error}"[:300])
            pipe.send(found)
    # At their end runtimes may take seconds, or hang.
    os._exit(0)


def connect(job: Job) -> Client:
    """Return a client for a job."""
    if "://" in job.target:
        return endpoints.connect(job.target, Signature.from_json(job.signature) if job.signature else None)
    if job.protocol in (local.IN_PROCESS, local.NOTHING):
        return local.connect(job.settings, job.target, job.protocol, rows(job.read(), slice(1)))
    clients = targets.load(job.target).clients(job.settings)
    chosen = clients.pop(job.protocol)
    for other in clients.values():
        other.close()
    return chosen


def work(job: Job, clients: Sequence[Client]) -> Result:
    """Run a job over these clients. Raises as the first requests do."""
    samples = job.read()
    length = len(next(iter(samples.values())))
    batches = [rows(samples, slice(start, start + job.rows)) for start in range(0, length, job.rows)]
    if job.scenario == ANSWERS:
        return Result(answers=joined([clients[0].predict(batch) for batch in batches]))
    fastest = float("inf")
    for client in clients:
        for batch in batches[:WARM_UP]:
            began = time.perf_counter()
            client.predict(batch)
            fastest = min(fastest, time.perf_counter() - began)
    spent = [0.0]
    calls = [_call(client, batches, spent) for client in clients]
    server, own = resources.cpu_seconds(job.pid), time.process_time()
    # The last batch may be a short one.
    count = max(1, length // job.rows)
    goals = {"rate": job.rate, "target_ms": job.target_ms, "fastest_ms": 1000 * fastest}
    reading = load.read(job.scenario, calls, count, job.seconds, **goals)
    after, own = resources.cpu_seconds(job.pid), time.process_time() - own
    sent = max(1, len(reading.latencies) + sum(reading.failures.values()))
    cpu = None if server is None or after is None else after - server
    if job.protocol == local.IN_PROCESS:
        cpu = spent[0]
    memory = clients[0].memory if isinstance(clients[0], local.Local) else None
    return Result(reading, {}, None if cpu is None else cpu / sent * 1e6, own / sent * 1e6, memory)


def _call(client: Client, batches: Sequence[Arrays], spent: list[float]) -> load.Call:
    """Return a function that sends a batch and adds the CPU seconds of this process to `spent`."""

    def call(index: int) -> None:
        before = time.process_time()
        client.predict(batches[index])
        spent[0] += time.process_time() - before

    return call
