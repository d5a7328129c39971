"""The process that sends load: it does one job after the other, and is ended where one takes too long.

A process of its own, so that what it costs can be told from what it measures.
"""

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
"""Protocols whose clients take seconds to open: each of their rows has a generator of its own, where it stays open."""
WARM_UP = 5
"""Requests before any that counts: connections are made, and servers meet the shape."""
PATIENCE_SECONDS = 60.0
"""What a generator may take beyond the time that it was given: start, warm-up, requests that wait."""


class GeneratorError(Exception):
    """A job could not be done; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to send, and where: to a target by its name, to an address of `endpoints`, or to a protocol of `local`."""

    settings: Settings
    """Of the server."""
    target: str
    protocol: str
    samples: Path
    """An .npz of the model's inputs by name."""
    scenario: str
    """`answers`, or a scenario of LoadGen."""
    seconds: float = 1.0
    rate: float = 0.0
    """Requests a second: offered, or expected where all are sent at once."""
    target_ms: float = 0.0
    expected_ms: float = 1.0
    connections: int = 1
    rows: int = 1
    """Samples in one request."""
    pid: int = 0
    """The server's process, whose CPU time is read; 0: none."""
    signature: dict[str, Any] = field(default_factory=dict)
    """Of an address whose server does not tell it."""


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
    """A process that does one job after the other, until it is closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=[theirs], daemon=True)
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        """Return False where it has ended, or was ended."""
        return self._process.is_alive()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    def do(self, job: Job) -> Result:
        """Raises `GeneratorError` with the job's error, or where it takes too long: then the process is ended."""
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
    """Send back the result of each job that comes, or its `GeneratorError`."""
    # Runtimes, TensorFlow's above all, print lines of their own.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # A stall of 100 ms in here would be read as the server's.
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
            except Exception as error:  # noqa: BLE001 - whatever a client raises is this row's fault, and is told there
                pipe.send(GeneratorError(f"{type(error).__name__}: {error}"[:300]))
            finally:
                for client in clients if clients is not kept else []:
                    client.close()


def connect(job: Job) -> Client:
    """A client of what a job names; an address of `endpoints` names its protocol itself."""
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
    """Do a job over these clients. Raises what the first requests raise."""
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
    memory = clients[0].memory if isinstance(clients[0], local.Local) else None
    return Result(reading, {}, None if cpu is None else cpu / sent * 1e6, own / sent * 1e6, memory)


def _read(job: Job, calls: list[load.Call], count: int) -> load.Reading:
    if job.scenario == load.SINGLE:
        return load.single_stream(calls[0], count, job.seconds, job.expected_ms)
    if job.scenario == load.POISSON:
        return load.poisson(calls, count, job.seconds, job.rate, job.target_ms)
    return load.offline(calls, count, job.seconds, job.rate)


def _call(client: Client, batches: Sequence[Arrays], spent: list[float]) -> load.Call:
    """Send a batch; the CPU seconds of this process meanwhile, its threads' too, are added to `spent`."""

    def call(index: int) -> None:
        before = time.process_time()
        client.predict(batches[index])
        spent[0] += time.process_time() - before

    return call
