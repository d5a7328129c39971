"""The process that sends load, job by job; it is ended if one takes too long. Its own CPU time is measured, too."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import suppress
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
    """Requests a second: offered, or expected if all are sent at once."""
    target_ms: float = 0.0
    expected_ms: float = 1.0
    connections: int = 1
    rows: int = 1
    """Samples in one request."""
    pid: int = 0
    """The server's process, for its CPU time; 0: none."""
    signature: dict[str, Any] = field(default_factory=dict)
    """The signature, for addresses without metadata."""


@dataclass(frozen=True)
class Result:
    """The result of a job. CPU times are in microseconds a request."""

    reading: load.Reading | None = None
    answers: Arrays = field(default_factory=dict)
    cpu_us: float | None = None
    generator_us: float | None = None


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
        self._process.kill()
        self._process.join()

    def do(self, job: Job) -> Result:
        """Run a job. Raises `GeneratorError` with its error, or if it takes too long: then the process is ended."""
        allowed = 4 * job.seconds + PATIENCE_SECONDS
        try:
            self._pipe.send(job)
            if not self._pipe.poll(allowed):
                self.close()
                raise GeneratorError(f"no result within {allowed:.0f} s: requests get no answer")
            found: Result | GeneratorError = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise GeneratorError("the generator has ended without a word") from None
        if isinstance(found, GeneratorError):
            raise found
        return found


def serve(pipe: Connection) -> None:
    """Run the jobs from a pipe, and send their results or `GeneratorError` back."""
    # Runtimes, above all TensorFlow, print lines.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # A pause of 100 ms would count as the server's.
    gc.disable()
    kept: list[Client] = []
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            gc.collect()
            clients = kept
            try:
                if not kept:
                    clients = [connect(job) for _ in range(job.connections)]
                if job.protocol in KEPT:
                    kept = clients
                pipe.send(work(job, clients))
            except Exception as error:  # noqa: BLE001 - any error of a client belongs to its row
                pipe.send(GeneratorError(f"{type(error).__name__}: {error}"[:300]))
            finally:
                for client in clients if clients is not kept else []:
                    client.close()


def connect(job: Job) -> Client:
    """Return a client for a job."""
    if "://" in job.target:
        return endpoints.connect(job.target, Signature.from_json(job.signature) if job.signature else None)
    if job.protocol in (local.IN_PROCESS, local.NOTHING):
        return local.connect(job.settings, job.target, job.protocol)
    clients = targets.load(job.target).clients(job.settings)
    chosen = clients.pop(job.protocol)
    for other in clients.values():
        other.close()
    return chosen


def work(job: Job, clients: Sequence[Client]) -> Result:
    """Run a job over these clients. Raises as the first requests do."""
    with np.load(job.samples) as stored:
        samples = {name: stored[name] for name in stored.files}
    length = len(next(iter(samples.values())))
    batches = [rows(samples, slice(start, start + job.rows)) for start in range(0, length, job.rows)]
    if job.scenario == ANSWERS:
        return Result(answers=joined([clients[0].predict(batch) for batch in batches]))
    for client in clients:
        for batch in batches[:WARM_UP]:
            client.predict(batch)
    spent = [0.0]
    calls = [_call(client, batches, spent) for client in clients]
    server, own = resources.cpu_seconds(job.pid), time.process_time()
    reading = _read(job, calls, length // job.rows)
    after, own = resources.cpu_seconds(job.pid), time.process_time() - own
    sent = max(1, len(reading.latencies) + sum(reading.failures.values()))
    cpu = None if server is None or after is None else after - server
    if job.protocol == local.IN_PROCESS:
        cpu = spent[0]
    return Result(reading, {}, None if cpu is None else cpu / sent * 1e6, own / sent * 1e6)


def _read(job: Job, calls: list[load.Call], count: int) -> load.Reading:
    if job.scenario == load.SINGLE:
        return load.single_stream(calls[0], count, job.seconds, job.expected_ms)
    if job.scenario == load.POISSON:
        return load.poisson(calls, count, job.seconds, job.rate, job.target_ms)
    return load.offline(calls, count, job.seconds, job.rate)


def _call(client: Client, batches: Sequence[Arrays], spent: list[float]) -> load.Call:
    """Return a function that sends a batch and adds the CPU seconds of this process to `spent`."""

    def call(index: int) -> None:
        before = time.process_time()
        client.predict(batches[index])
        spent[0] += time.process_time() - before

    return call
