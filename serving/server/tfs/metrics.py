"""The most used metrics of the original, with the original's names.

https://www.tensorflow.org/tfx/serving/serving_config#monitoring_configuration
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

from serving.server.records import RequestRecord

BUCKETS = [10 * 1.8**power for power in range(33)]
"""The original's buckets, in microseconds."""


class TfsMetrics:
    """Requests by model and status; latencies of requests and runs by model and API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def latency(name: str, text: str, label: str) -> Histogram:
            labels = ["model_name", "API", label]
            return Histogram(f":tensorflow:serving:{name}", text, labels, buckets=BUCKETS, registry=registry)

        # Not a Counter: its name would end with _total.
        name = ":tensorflow:serving:request_count"
        labels = ["model_name", "status"]
        self._counts = Gauge(name, "Requests to models that are served.", labels, registry=registry)
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
