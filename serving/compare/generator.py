"""The process that sends load: `python -m serving.compare.generator` takes jobs on stdin, and prints a line for each.

A process of its own, so that what it costs can be told from what it measures, and so that it can be ended.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
"""Protocols whose clients take seconds to open."""
WARM_UP = 5
"""Requests before any that counts: connections are made, and servers meet the shape."""


class GeneratorError(Exception):
    """A job could not be done; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to send, and where: to a target by its name, to an address of `endpoints`, or to a protocol of `local`.

    `samples` is an .npz of the model's inputs by name.
    """

    target: str
    protocol: str
    samples: str
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
    answers: str = ""
    """The .npz to write the outputs to."""
    signature: dict[str, Any] = field(default_factory=dict)
    """Of an address whose server does not tell it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of its server, where they are other than the comparison's."""


@dataclass(frozen=True)
class Result:
    """What became of a job. CPU times are in microseconds a request."""

    reading: load.Reading | None = None
    cpu_us: float | None = None
    generator_us: float | None = None


def work(job: Job, connect: Callable[[], Client]) -> Result:
    """Do a job over clients that `connect` makes, and close them. Raises what the first requests raise."""
    with np.load(job.samples) as stored:
        samples = {name: stored[name] for name in stored.files}
    length = len(next(iter(samples.values())))
    batches = [rows(samples, slice(start, start + job.rows)) for start in range(0, length, job.rows)]
    clients = [connect() for _ in range(job.connections)]
    try:
        if job.scenario == ANSWERS:
            outputs = [clients[0].predict(batch) for batch in batches]
            np.savez(job.answers, **joined(outputs))  # type: ignore[arg-type]
            return Result()
        count = length // job.rows
        for client in clients:
            for batch in batches[:WARM_UP]:
                client.predict(batch)
        spent = [0.0]
        calls = [_call(client, batches, spent) for client in clients]
        server, own = _cpu(job.pid), _own()
        reading = _scenario(job, calls, count)
        sent = max(1, len(reading.latencies) + sum(reading.failures.values()))
        after = _cpu(job.pid)
        cpu = None if server is None or after is None else (after - server) / sent * 1e6
        if job.protocol == local.IN_PROCESS:
            cpu = spent[0] / sent * 1e6
        return Result(reading, cpu, (_own() - own) / sent * 1e6)
    finally:
        for client in clients:
            client.close()


def _scenario(job: Job, calls: list[load.Call], count: int) -> load.Reading:
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


def _cpu(pid: int) -> float | None:
    return resources.cpu_seconds(pid) if pid else None


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Do the job of each line of stdin, and print its result, or its `error`, as a line of JSON."""
    # A stall of 100 ms in here would be read as the server's.
    gc.disable()
    settings = Settings.from_environment()
    kept: dict[tuple[Settings, str], Client] = {}
    for line in sys.stdin:
        job = Job(**json.loads(line))
        gc.collect()
        try:
            own = dataclasses.replace(settings, **job.settings)
            # JSON knows no paths.
            own = dataclasses.replace(own, artifacts=Path(own.artifacts))
            connected: Callable[[], Client] = partial(connect, own, job.target, job.protocol, job.signature)
            if job.protocol in KEPT:
                client = kept[own, job.target] = kept.get((own, job.target)) or connected()
                connected = partial(Kept, client)
            answer = dataclasses.asdict(work(job, connected))
        except Exception as error:  # noqa: BLE001 - whatever a client raises is this row's fault, and is told there
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def connect(
    settings: Settings, target: str, protocol: str, signature: Mapping[str, Any] | None = None
) -> Client:
    """A client of what a job names; an address of `endpoints` names its protocol itself."""
    if "://" in target:
        return endpoints.connect(target, Signature.from_json(signature) if signature else None)
    if protocol in (local.IN_PROCESS, local.NOTHING):
        return local.connect(settings, target, protocol)
    clients = targets.load(target).clients(settings)
    chosen = clients.pop(protocol)
    for other in clients.values():
        other.close()
    return chosen


class Kept:
    """A client that stays open from one job to the next."""

    def __init__(self, client: Client) -> None:
        self.predict = client.predict

    def close(self) -> None:
        """Leave it open: the process ends it."""


def read(line: str) -> Result:
    """The result that `main` printed. Raises `GeneratorError` with the error."""
    fields = json.loads(line)
    if "error" in fields:
        raise GeneratorError(fields["error"])
    reading = load.Reading(**fields["reading"]) if fields["reading"] else None
    return Result(**{**fields, "reading": reading})


if __name__ == "__main__":
    main()
