"""The process that sends load: `python -m serving.compare.generator` takes jobs on stdin, and prints a line for each.

A process of its own, so that what it costs can be told from what it measures, and so that it can be ended.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import targets
from serving.compare import endpoints, load, resources
from serving.settings import Settings
from serving.targets.base import Client

ANSWERS = "answers"
WARM_UP = 5
"""Requests before any that counts: connections are made, and servers meet the shape."""


class GeneratorError(Exception):
    """A job could not be done; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to send, and where: to a target by its name, or to an address of `endpoints`.

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


@dataclass(frozen=True)
class Result:
    """What became of a job. CPU times are in microseconds a request."""

    reading: load.Reading | None = None
    cpu_us: float | None = None
    generator_us: float | None = None


def work(job: Job, connect: Callable[[], Client]) -> Result:
    """Do a job over clients that `connect` makes. Raises what the first requests raise."""
    with np.load(job.samples) as stored:
        samples = {name: stored[name] for name in stored.files}
    count = len(next(iter(samples.values()))) // job.rows
    batches = [
        {name: array[i * job.rows : (i + 1) * job.rows] for name, array in samples.items()}
        for i in range(count)
    ]
    clients = [connect() for _ in range(job.connections)]
    try:
        if job.scenario == ANSWERS:
            outputs = [clients[0].predict(batch) for batch in batches]
            arrays: dict[str, Any] = {n: np.concatenate([o[n] for o in outputs]) for n in outputs[0]}
            np.savez(job.answers, **arrays)
            return Result()
        for client in clients:
            for batch in batches[:WARM_UP]:
                client.predict(batch)
        calls = [_call(client, batches) for client in clients]
        server, own = _cpu(job.pid), _own()
        reading = _scenario(job, calls, count)
        sent = max(1, len(reading.latencies) + sum(reading.failures.values()))
        after = _cpu(job.pid)
        cpu = None if server is None or after is None else (after - server) / sent * 1e6
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


def _call(client: Client, batches: list[dict[str, NDArray[Any]]]) -> load.Call:
    def call(index: int) -> None:
        client.predict(batches[index])

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
    for line in sys.stdin:
        job = Job(**json.loads(line))
        try:
            answer = dataclasses.asdict(work(job, partial(connect, settings, job.target, job.protocol)))
        except Exception as error:  # noqa: BLE001 - whatever a client raises is this row's fault, and is told there
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def connect(settings: Settings, target: str, protocol: str) -> Client:
    """A client of one endpoint: a target by its name, or an address of `endpoints`, which names its protocol itself."""
    if "://" in target:
        return endpoints.connect(target)
    clients = targets.load(target).clients(settings)
    chosen = clients.pop(protocol)
    for other in clients.values():
        other.close()
    return chosen


def read(line: str) -> Result:
    """The result that `main` printed. Raises `GeneratorError` with the error."""
    fields = json.loads(line)
    if "error" in fields:
        raise GeneratorError(fields["error"])
    reading = load.Reading(**fields["reading"]) if fields["reading"] else None
    return Result(**{**fields, "reading": reading})


if __name__ == "__main__":
    main()
