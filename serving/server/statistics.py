"""Sums of a version's requests and runs, for the statistics extension of the Open Inference Protocol."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from serving.server.records import RequestRecord


@dataclass(slots=True)
class Duration:
    """How often something happened, and the seconds that it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count it once more."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """Sums since the version was loaded."""

    success: Duration = field(default_factory=Duration)
    """Requests answered, from their first byte to the response."""
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    """How long requests waited for their run."""
    compute: Duration = field(default_factory=Duration)
    """Requests' runs; a run that is shared counts whole for each of them."""
    rows: int = 0
    """Rows answered."""
    runs: dict[int, Duration] = field(default_factory=dict)
    """Runs by their number of rows."""
    last: float = 0.0
    """When the last request was answered, in seconds since 1970; 0: never."""

    def request(self, record: RequestRecord) -> None:
        """Count a finished request."""
        (self.success if record.code == "OK" else self.fail).add(record.seconds)
        if record.run_seconds:
            self.queue.add(record.queue_seconds)
            self.compute.add(record.run_seconds)
        self.last = time.time()

    def run(self, rows: int, seconds: float) -> None:
        """Count a run of the model."""
        self.runs.setdefault(rows, Duration()).add(seconds)
        self.rows += rows
