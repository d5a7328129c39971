"""The figures of the original's page for Prometheus that its operators watch, by the original's names.

https://www.tensorflow.org/tfx/serving/serving_config#monitoring_configuration
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from serving.server.records import RequestRecord

BUCKETS = [10 * 1.8**power for power in range(33)]
"""Microseconds: the original's."""


class TfsMetrics(Collector):
    """Requests by model and status, their latencies by model, API and entry point, and their runs'."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._latencies = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request's first byte to its response.",
            ["model_name", "API", "entrypoint"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._runtimes = Histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds that a request waited for its run, and ran.",
            ["model_name", "API", "runtime"],
            buckets=BUCKETS,
            registry=registry,
        )
        registry.register(self)

    def request(self, record: RequestRecord) -> None:
        """Note a finished request to a version that is served."""
        if not record.operation or not record.version:
            return
        self._counts[record.model, record.code] += 1
        entrypoint = "GRPC" if record.method == "gRPC" else "REST"
        self._latencies.labels(record.model, record.operation, entrypoint).observe(record.seconds * 1e6)
        if record.run_seconds:
            api = record.operation[0].upper() + record.operation[1:]
            seconds = record.queue_seconds + record.run_seconds
            self._runtimes.labels(record.model, api, "TF1").observe(seconds * 1e6)

    def collect(self) -> Iterator[Metric]:
        """The count, whose name does not end with _total, as that of the library's counters does."""
        counts = Metric(":tensorflow:serving:request_count", "Requests to models that are served.", "unknown")
        for (model, code), count in self._counts.items():
            counts.add_sample(counts.name, {"model_name": model, "status": code}, count)
        yield counts
