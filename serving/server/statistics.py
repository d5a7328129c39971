"""What became of a version's requests, as the statistics extension of the Open Inference Protocol counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Duration:
    """How often something happened, and the nanoseconds that it took altogether."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float) -> None:
        """Count once more."""
        self.count += 1
        self.nanoseconds += round(seconds * 1e9)


@dataclass
class Statistics:
    """Sums since the version was loaded. Only the event loop's thread writes them."""

    success: Duration = field(default_factory=Duration)
    """Requests answered, from the request read to the response made."""
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    """Requests' waiting for their run."""
    compute: Duration = field(default_factory=Duration)
    """Requests' runs; a run that is shared counts whole for each of them."""
    rows: int = 0
    """Rows answered."""
    runs: dict[int, Duration] = field(default_factory=dict)
    """Runs by their number of rows."""
    last_milliseconds: int = 0
    """When the last request was answered, in milliseconds since 1970; 0: never."""

    def request(self, seconds: float, succeeded: bool) -> None:
        """Count a request."""
        (self.success if succeeded else self.fail).add(seconds)
        self.last_milliseconds = time.time_ns() // 1_000_000

    def run(self, rows: int, seconds: float) -> None:
        """Count a run of the model."""
        self.runs.setdefault(rows, Duration()).add(seconds)
        self.rows += rows
