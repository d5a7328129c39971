"""What the server tells Prometheus."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from serving.server import VERSION
from serving.server.tallies import Tally

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAITS = (0.0001, *SECONDS)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns where the workers of one server keep their figures together."""


class Waiting(Protocol):
    """A queue."""

    @property
    def waiting(self) -> int:
        """Requests in it."""


class ModelMetrics:
    """The figures of one model's runs. Only the event loop's thread uses them."""

    def __init__(self, queue: Tally, runs: Tally, rows: Tally) -> None:
        self.batchers: WeakSet[Waiting] = WeakSet()
        self.queue_seconds = queue.observe
        """Count how long a request has waited for its run."""
        self._runs = runs.observe
        self._rows = rows.observe

    def run(self, rows: int, seconds: float) -> None:
        """Count one run of the model."""
        self._rows(rows)
        self._runs(seconds)


class Metrics:
    """The figures of one server: of one process, or of all its workers together."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._shared = SHARED in os.environ
        self._requests = Counter(
            "tandem_requests",
            "Inference requests answered; model and version are empty where none was found.",
            ["model", "version", "protocol", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tandem_request_seconds",
            "From the whole request read to the response made; not of requests refused for their own faults.",
            ["model", "protocol"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "tandem_queue_seconds",
            "Requests' waiting for their run.",
            ["model"],
            buckets=WAITS,
            registry=registry,
        )
        self._runs = Histogram(
            "tandem_run_seconds", "Runs of a model.", ["model"], buckets=SECONDS, registry=registry
        )
        self._rows = Histogram(
            "tandem_batch_rows", "Rows in a run of a model.", ["model"], buckets=ROWS, registry=registry
        )
        self._depth = Gauge(
            "tandem_queue_depth",
            "Requests that wait for a run now.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._dropped = Counter(
            "tandem_access_log_dropped",
            "Lines that the access log could not keep up with.",
            registry=registry,
        )
        self._process = _SharedProcess(registry) if self._shared else ProcessCollector(registry=registry)
        self._versions: set[tuple[str, str]] = set()
        self._models: dict[str, ModelMetrics] = {}
        self._untold: list[Tally] = []
        self._answered: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        """Requests of which `_requests` was not told yet."""
        self._durations: dict[tuple[str, str], Tally] = {}

    def request(
        self, model: str, version: str, protocol: str, code: str, seconds: float, timed: bool = True
    ) -> None:
        """Count an answered request; `model` is a served one's name or empty, never a client's words.

        `timed` says whether `seconds` tell of the server: a refusal comes sooner than any answer.
        """
        if self._shared:  # At once: other workers tell of it, and go on telling when this one is killed.
            self._requests.labels(model, version, protocol, code).inc()
        else:
            self._answered[model, version, protocol, code] += 1
        if not timed:
            return
        durations = self._durations.get((model, protocol))
        if durations is None:
            durations = self._durations[model, protocol] = self._tally(
                self._seconds, SECONDS, model, protocol
            )
        durations.observe(seconds)

    def model(self, model: str) -> ModelMetrics:
        """The figures of one model's runs."""
        if model not in self._models:
            self._models[model] = ModelMetrics(
                self._tally(self._queue, WAITS, model),
                self._tally(self._runs, SECONDS, model),
                self._tally(self._rows, ROWS, model),
            )
        return self._models[model]

    def _tally(self, histogram: Histogram, bounds: Sequence[float], *labels: str) -> Tally:
        tally = Tally(histogram.labels(*labels), bounds)
        self._untold.append(tally)
        return tally

    def run(self, model: str, rows: int, seconds: float) -> None:
        """Count one run of a model."""
        self.model(model).run(rows, seconds)

    def loaded(self, model: str, version: int, present: bool) -> None:
        """Note that a version was loaded or unloaded."""
        (self._versions.add if present else self._versions.discard)((model, str(version)))

    def dropped(self) -> None:
        """Count a line that the access log has dropped."""
        self._dropped.inc()

    def sample(self) -> None:
        """Bring up to date what is not counted as it happens. Workers do it every second: they cannot be asked."""
        for counted in self._untold:
            counted.tell()
        for labels, count in self._answered.items():
            self._requests.labels(*labels).inc(count)
        self._answered.clear()
        for name, model in self._models.items():
            self._depth.labels(name).set(sum(batcher.waiting for batcher in model.batchers))
        if isinstance(self._process, _SharedProcess):
            self._process.sample()

    def page(self) -> bytes:
        """The exposition in Prometheus' text format. Of several workers: their sum, from whichever is asked."""
        self.sample()
        state = CollectorRegistry()
        state.register(_State(self._versions))
        if not self._shared:
            return generate_latest(self._registry) + generate_latest(state)
        MultiProcessCollector(state)  # type: ignore[no-untyped-call]
        return generate_latest(state)


class _State:
    """What the process that is asked has loaded, and what it is."""

    def __init__(self, versions: set[tuple[str, str]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client's collectors."""
        loaded = GaugeMetricFamily(
            "tandem_model_version", "1 for each version that is loaded.", labels=["model", "version"]
        )
        for labels in sorted(self._versions):
            loaded.add_metric(labels, 1)
        yield loaded
        build = GaugeMetricFamily("tandem_build_info", "1.", labels=["version", "python"])
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build


class _SharedProcess:
    """Memory, CPU time and start of all workers, by the names that `ProcessCollector` has for those of one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._own = ProcessCollector(registry=None)
        self._memory = Gauge(
            "process_resident_memory_bytes",
            "Resident memory of all workers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._cpu = Counter("process_cpu_seconds", "CPU time of all workers.", registry=registry)
        self._counted = 0.0
        self._start = Gauge(
            "process_start_time_seconds",
            "When the newest worker was started.",
            registry=registry,
            multiprocess_mode="max",
        )

    def sample(self) -> None:
        """Look again."""
        seen = {sample.name: sample.value for family in self._own.collect() for sample in family.samples}
        if not seen:  # There is no /proc here.
            return
        self._memory.set(seen["process_resident_memory_bytes"])
        self._cpu.inc(max(0.0, seen["process_cpu_seconds_total"] - self._counted))
        self._counted = seen["process_cpu_seconds_total"]
        self._start.set(seen["process_start_time_seconds"])
