"""The figures of the original's page for Prometheus that its operators watch, by the original's names.

https://www.tensorflow.org/tfx/serving/serving_config#monitoring_configuration
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

COUNT = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
RUNTIME = ":tensorflow:serving:runtime_latency"
BOUNDS = [10 * 1.8**power for power in range(33)]
"""Microseconds: the original's buckets."""

LABELS = [*map(str, BOUNDS), "+Inf"]

Labels = tuple[tuple[str, str], ...]


@dataclass
class Histogram:
    """How many values lay in each bucket, and their sum, in microseconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(LABELS))
    sum: float = 0.0


class TfsMetrics:
    """Requests by model and status, their latencies by model, API and entry point, and their runs'."""

    def __init__(self) -> None:
        self._counts: dict[Labels, int] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {LATENCY: {}, RUNTIME: {}}

    def request(self, model: str, code: str) -> None:
        """Count a request of a model that is served."""
        labels = (("model_name", model), ("status", code))
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def latency(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """Note how long a request took."""
        self._note(LATENCY, (("model_name", model), ("API", api), ("entrypoint", entrypoint)), seconds)

    def run(self, model: str, api: str, seconds: float) -> None:
        """Note how long a request waited for its run, and ran."""
        self._note(RUNTIME, (("model_name", model), ("API", api), ("runtime", "TF1")), seconds)

    def page(self) -> str:
        """The exposition in Prometheus' text format."""
        lines = [f"# TYPE {COUNT} counter"]
        lines += [_sample(COUNT, labels, count) for labels, count in self._counts.items()]
        for name, histograms in self._histograms.items():
            lines.append(f"# TYPE {name} histogram")
            for labels, histogram in histograms.items():
                for bound, count in zip(LABELS, accumulate(histogram.buckets), strict=True):
                    lines.append(_sample(f"{name}_bucket", (*labels, ("le", bound)), count))
                lines.append(_sample(f"{name}_sum", labels, histogram.sum))
                lines.append(_sample(f"{name}_count", labels, sum(histogram.buckets)))
        return "\n".join(lines) + "\n"

    def _note(self, name: str, labels: Labels, seconds: float) -> None:
        histogram = self._histograms[name].get(labels)
        if histogram is None:
            histogram = self._histograms[name][labels] = Histogram()
        microseconds = seconds * 1e6
        histogram.buckets[bisect_left(BOUNDS, microseconds)] += 1
        histogram.sum += microseconds


def _sample(name: str, labels: Labels, value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{told}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
