"""What the server tells Prometheus."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The figures of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "tandem_requests",
            "Inference requests answered; model and version are empty where none was found.",
            ["model", "version", "protocol", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tandem_request_seconds",
            "From the whole request read to the response made.",
            ["model", "protocol"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._runs = Histogram(
            "tandem_run_seconds", "Runs of a model.", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._rows = Histogram(
            "tandem_batch_rows", "Rows in a run of a model.", ["model"], buckets=ROWS, registry=self._registry
        )
        self._loaded = Gauge(
            "tandem_model_version",
            "1 for each version that is loaded.",
            ["model", "version"],
            registry=self._registry,
        )
        # Finding a child by its labels costs more than counting in it.
        self._request_child = lru_cache(1024)(self._requests.labels)
        self._seconds_child = lru_cache(256)(self._seconds.labels)

    def request(self, model: str, version: str, protocol: str, code: str, seconds: float) -> None:
        """Count an answered request; `model` is a served one's name or empty, never a client's words."""
        self._request_child(model, version, protocol, code).inc()
        self._seconds_child(model, protocol).observe(seconds)

    def run(self, model: str, rows: int, seconds: float) -> None:
        """Count one run of a model."""
        self._rows.labels(model).observe(rows)
        self._runs.labels(model).observe(seconds)

    def loaded(self, model: str, version: int, present: bool) -> None:
        """Note that a version was loaded or unloaded."""
        if present:
            self._loaded.labels(model, str(version)).set(1)
        else:
            self._loaded.remove(model, str(version))

    def page(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)
