"""What the server counts: for Prometheus, and for the protocols' statistics. Everything is counted here, once."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.server import VERSION
from serving.server.records import RequestRecord
from serving.server.statistics import Statistics

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TIMED = frozenset(("OK", "INTERNAL", "DEADLINE_EXCEEDED"))
"""Codes of requests whose duration tells of the server: it refuses in no time, and clients leave when they like."""

Waiting = Callable[[], int]
"""How many requests wait in a queue."""


class Metrics:
    """The figures of one server. Only the event loop's thread uses them."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._statistics: dict[tuple[str, str], Statistics] = {}
        self._queues: dict[tuple[str, str], Waiting] = {}
        self._requests = Counter(
            "tandem_requests",
            "Requests to models; model and version are empty where none was found.",
            ["model", "version", "protocol", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tandem_request_seconds",
            "From a request's first byte to its response; not of requests refused for their own faults.",
            ["model", "protocol"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queue_seconds = Histogram(
            "tandem_queue_seconds",
            "How long requests waited for their run.",
            ["model"],
            buckets=(0.0001, *SECONDS),
            registry=registry,
        )
        self._run_seconds = Histogram(
            "tandem_run_seconds", "Runs of a model.", ["model"], buckets=SECONDS, registry=registry
        )
        self._rows = Histogram(
            "tandem_batch_rows", "Rows in a run of a model.", ["model"], buckets=ROWS, registry=registry
        )
        self._dropped = Counter(
            "tandem_access_log_dropped",
            "Lines that the access log could not keep up with.",
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(_Loaded(self._queues))

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
        """The sums of a version since it was loaded."""
        return self._statistics.get((model, version)) or Statistics()

    def loaded(self, model: str, version: str, waiting: Waiting) -> None:
        """Note that a version was loaded; `waiting` says how many requests wait for it."""
        self._statistics[model, version] = Statistics()
        self._queues[model, version] = waiting

    def unloaded(self, model: str, version: str, waiting: Waiting) -> None:
        """Note that a version was unloaded, the one of this `waiting`: another of its number may be loaded by now."""
        if self._queues.get((model, version)) == waiting:
            del self._queues[model, version]
            self._statistics.pop((model, version), None)

    def dropped_log_line(self) -> None:
        """Count a line that the access log has dropped."""
        self._dropped.inc()

    def page(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)


class _Loaded(Collector):
    """What is loaded and waits now, and what the process is."""

    def __init__(self, queues: dict[tuple[str, str], Waiting]) -> None:
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        loaded = GaugeMetricFamily(
            "tandem_model_version", "1 for each version that is loaded.", labels=["model", "version"]
        )
        depth = GaugeMetricFamily("tandem_queue_depth", "Requests that wait for a run now.", labels=["model"])
        waiting: dict[str, int] = {}
        for (model, version), queue in sorted(self._queues.items()):
            loaded.add_metric([model, version], 1)
            waiting[model] = waiting.get(model, 0) + queue()
        for model, count in waiting.items():
            depth.add_metric([model], count)
        build = GaugeMetricFamily("tandem_build_info", "1.", labels=["version", "python"])
        build.add_metric([VERSION, platform.python_version()], 1)
        yield from (loaded, depth, build)
