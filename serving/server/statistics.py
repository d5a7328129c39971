"""What became of a version's requests, as the statistics extension of the Open Inference Protocol counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often something happened, and the seconds that it took altogether."""

    count: int = 0
    seconds: float = 0.0

    @property
    def nanoseconds(self) -> int:
        """As the protocol has it."""
        return round(self.seconds * 1e9)


@dataclass(slots=True)
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
    last: float = 0.0
    """When the last request was answered, in seconds since 1970; 0: never."""

    @property
    def last_milliseconds(self) -> int:
        """As the protocol has it."""
        return int(self.last * 1000)

    def request(self, seconds: float, succeeded: bool) -> None:
        """Count a request."""
        ended = self.success if succeeded else self.fail
        ended.count += 1
        ended.seconds += seconds
        self.last = time.time()

    def wait(self, queued: float, seconds: float) -> None:
        """Count a request's waiting for its run, and the run."""
        self.queue.count += 1
        self.queue.seconds += queued
        self.compute.count += 1
        self.compute.seconds += seconds

    def run(self, rows: int, seconds: float) -> None:
        """Count a run of the model."""
        runs = self.runs.get(rows)
        if runs is None:
            runs = self.runs[rows] = Duration()
        runs.count += 1
        runs.seconds += seconds
        self.rows += rows
