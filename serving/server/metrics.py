"""The server's metrics, for Prometheus and for the protocols' statistics."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from serving.server import VERSION
from serving.server.records import RequestRecord

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TIMED = frozenset(("OK", "INTERNAL", "DEADLINE_EXCEEDED"))
"""Codes of requests whose duration depends on the server: refusals and cancelled requests do not."""

Waiting = Callable[[], int]
"""Return the number of requests in a queue."""


@dataclass(slots=True)
class Duration:
    """A count of events and the sum of their seconds."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """Sums since a version was loaded, for the statistics extension of the Open Inference Protocol."""

    success: Duration = field(default_factory=Duration)
    """Answered requests, from the first byte to the response."""
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    """Waits of requests for their run."""
    compute: Duration = field(default_factory=Duration)
    """Runs of requests; a shared run counts in full for each of them."""
    rows: int = 0
    """The number of answered rows."""
    runs: dict[int, Duration] = field(default_factory=dict)
    """Runs by their number of rows."""
    last: float = 0.0
    """Time of the last response, in seconds since 1970; 0: none yet."""

    def request(self, record: RequestRecord) -> None:
        (self.success if record.code == "OK" else self.fail).add(record.seconds)
        if record.run_seconds:
            self.queue.add(record.queue_seconds)
            self.compute.add(record.run_seconds)
        self.last = time.time()

    def run(self, rows: int, seconds: float) -> None:
        self.runs.setdefault(rows, Duration()).add(seconds)
        self.rows += rows


class Metrics:
    """The metrics of one server. Not thread-safe: used by the event loop only."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._statistics: dict[tuple[str, str], Statistics] = {}
        self._queues: dict[tuple[str, str], Waiting] = {}

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._requests = Counter(
            "tandem_requests",
            "Requests to models; model and version are empty where none was found.",
            ["model", "version", "protocol", "code"],
            registry=registry,
        )
        latency = "From a request's first byte to its response; not of requests refused for their own faults."
        self._seconds = histogram("tandem_request_seconds", latency, SECONDS, "model", "protocol")
        waited = "How long requests waited for their run."
        self._queue_seconds = histogram("tandem_queue_seconds", waited, (0.0001, *SECONDS), "model")
        self._run_seconds = histogram("tandem_run_seconds", "Runs of a model.", SECONDS, "model")
        self._rows = histogram("tandem_batch_rows", "Rows in a run of a model.", ROWS, "model")
        dropped = "Lines that the access log could not keep up with."
        self._dropped = Counter("tandem_access_log_dropped", dropped, registry=registry)
        labels = ["model", "version"]
        self._versions = Gauge(
            "tandem_model_version", "1 for each loaded version.", labels, registry=registry
        )
        waiting = "Requests that wait for a run now."
        self._depth = Gauge("tandem_queue_depth", waiting, ["model"], registry=registry)
        build = Info("tandem_build", "Versions of the server and of Python.", registry=registry)
        build.info({"version": VERSION, "python": platform.python_version()})
        ProcessCollector(registry=registry)

    def request(self, record: RequestRecord) -> None:
        """Count a finished request to a model."""
        if not record.protocol:
            return
        self._requests.labels(record.model, record.version, record.protocol, record.code).inc()
        if record.code in TIMED:
            self._seconds.labels(record.model, record.protocol).observe(record.seconds)
        if record.run_seconds:
            self._queue_seconds.labels(record.model).observe(record.queue_seconds)
        statistics = self._statistics.get((record.model, record.version))
        if statistics is not None:
            statistics.request(record)

    def run(self, model: str, version: str, rows: int, seconds: float) -> None:
        """Count a run of a model that succeeded."""
        self._rows.labels(model).observe(rows)
        self._run_seconds.labels(model).observe(seconds)
        self.statistics(model, version).run(rows, seconds)

    def statistics(self, model: str, version: str) -> Statistics:
        """Return the sums of a version since it was loaded."""
        return self._statistics.get((model, version)) or Statistics()

    def loaded(self, model: str, version: str, waiting: Waiting) -> None:
        """Start the statistics of a version; `waiting` returns its number of waiting requests."""
        self._statistics[model, version] = Statistics()
        self._queues[model, version] = waiting
        self._versions.labels(model, version).set(1)
        self._depth.labels(model).set_function(
            lambda: sum(queue() for (name, _), queue in self._queues.items() if name == model)
        )

    def unloaded(self, model: str, version: str, waiting: Waiting) -> None:
        """Drop the version with this `waiting`: its number may have been loaded again."""
        if self._queues.get((model, version)) != waiting:
            return
        del self._queues[model, version], self._statistics[model, version]
        self._versions.remove(model, version)
        if all(name != model for name, _ in self._queues):
            self._depth.remove(model)

    def dropped_log_line(self) -> None:
        self._dropped.inc()

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
