"""The record of each request, and what is counted of them: metrics for Prometheus, statistics of versions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TFS_MICROSECONDS = [10 * 1.8**power for power in range(33)]
"""TensorFlow Serving's buckets."""
TIMED = frozenset(("OK", "INTERNAL", "DEADLINE_EXCEEDED"))
"""Codes of requests whose duration depends on the server: refusals and cancelled requests do not."""


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


@dataclass(slots=True)
class RequestRecord:
    """One request. Times are in seconds, sizes in bytes."""

    method: str
    """HTTP's method, or "gRPC"."""
    path: str
    """The URL's path as it was sent, or the gRPC method's."""
    client: str
    protocol: str = ""
    """Set for requests to a model: "oip-rest", "oip-grpc", "tfs-rest" or "tfs-grpc"."""
    operation: str = ""
    """The request's name in TensorFlow Serving's metrics: "predict", "Classify", ..."""
    model: str = ""
    """Name of a served model, never another string of the client."""
    version: str = ""
    statistics: Statistics | None = None
    """The version's."""
    code: str = "OK"
    """A gRPC status code's name."""
    status: int = 0
    """HTTP's status; 0 for gRPC."""
    rows: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    begun: float = field(default_factory=time.perf_counter)


Observe = Callable[[RequestRecord], None]
"""Called once with each finished request, in the event loop."""


class Metrics:
    content_type = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> prometheus.Histogram:
            return prometheus.Histogram(name, text, labels, buckets=buckets, registry=registry)

        requests = "Requests to models; model and version are empty where none was found."
        labels = ["model", "version", "protocol", "code"]
        self._requests = prometheus.Counter("tandem_requests", requests, labels, registry=registry)
        latency = "From a request's first byte to its response; not of requests refused for their own faults."
        self._seconds = histogram("tandem_request_seconds", latency, SECONDS, "model", "protocol")
        waited = "How long requests waited for their run."
        self._queue_seconds = histogram("tandem_queue_seconds", waited, (0.0001, *SECONDS), "model")
        self._run_seconds = histogram("tandem_run_seconds", "Runs of a model.", SECONDS, "model")
        self._rows = histogram("tandem_batch_rows", "Rows in a run of a model.", ROWS, "model")
        dropped = "Lines that the access log could not keep up with."
        self.dropped_log_lines = prometheus.Counter("tandem_access_log_dropped", dropped, registry=registry)
        prometheus.ProcessCollector(registry=registry)

    def show(self, loads: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        """Add the loaded versions: `loads` returns the model, number, and count of waiting requests of each."""
        self.registry.register(_LoadedVersions(loads))

    def request(self, record: RequestRecord) -> None:
        """Count a finished request to a model."""
        if not record.protocol:
            return
        self._requests.labels(record.model, record.version, record.protocol, record.code).inc()
        if record.code in TIMED:
            self._seconds.labels(record.model, record.protocol).observe(record.seconds)
        if record.run_seconds:
            self._queue_seconds.labels(record.model).observe(record.queue_seconds)
        if record.statistics is not None:
            record.statistics.request(record)

    def run(self, model: str, rows: int, seconds: float) -> None:
        self._rows.labels(model).observe(rows)
        self._run_seconds.labels(model).observe(seconds)

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)


class TfsMetrics:
    """The most used metrics of TensorFlow Serving, with its names.

    https://www.tensorflow.org/tfx/serving/serving_config#monitoring_configuration
    """

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        def latency(name: str, text: str, label: str) -> prometheus.Histogram:
            labels = ["model_name", "API", label]
            return prometheus.Histogram(
                f":tensorflow:serving:{name}", text, labels, buckets=TFS_MICROSECONDS, registry=registry
            )

        # Not a prometheus.Counter: its name would end with _total.
        name = ":tensorflow:serving:request_count"
        labels = ["model_name", "status"]
        self._counts = prometheus.Gauge(name, "Requests to served models.", labels, registry=registry)
        text = "Microseconds from a request's first byte to its response."
        self._latencies = latency("request_latency", text, "entrypoint")
        text = "Microseconds that a request waited for its run, and ran."
        self._runtimes = latency("runtime_latency", text, "runtime")

    def request(self, record: RequestRecord) -> None:
        """Count a finished request to a served version."""
        if not record.operation or not record.version:
            return
        self._counts.labels(record.model, record.code).inc()
        entrypoint = "GRPC" if record.method == "gRPC" else "REST"
        self._latencies.labels(record.model, record.operation, entrypoint).observe(record.seconds * 1e6)
        if record.run_seconds:
            api = record.operation[0].upper() + record.operation[1:]
            seconds = record.queue_seconds + record.run_seconds
            self._runtimes.labels(record.model, api, "TF1").observe(seconds * 1e6)


class _LoadedVersions(Collector):
    def __init__(self, loads: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        self._loads = loads

    def collect(self) -> Iterable[GaugeMetricFamily]:
        text = "1 for each loaded version."
        versions = GaugeMetricFamily("tandem_model_version", text, labels=["model", "version"])
        text = "Requests that wait for a run now."
        depth = GaugeMetricFamily("tandem_queue_depth", text, labels=["model"])
        waiting: Counter[str] = Counter()
        for model, version, count in self._loads():
            versions.add_metric([model, str(version)], 1)
            waiting[model] += count
        for model, total in waiting.items():
            depth.add_metric([model], total)
        return [versions, depth]
