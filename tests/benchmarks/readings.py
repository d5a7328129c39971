"""What was read, and the figures that follow from it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from .callers import Turn
from .contenders import Contender


@dataclass
class Endpoint:
    """The turns of one server by one protocol, a pair a round."""

    runtime: str
    single: list[Turn] = field(default_factory=list)
    """At concurrency 1."""
    many: list[Turn] = field(default_factory=list)
    """At the concurrency that was asked for."""

    @property
    def cpu(self) -> list[float]:
        """CPU microseconds a request at concurrency 1, by round."""
        return [turn.cpu_seconds / turn.calls * 1e6 for turn in self.single]

    def overhead(self, alone: dict[str, list[float]]) -> float:
        """Of the CPU microseconds, what the model alone does not take: the median of the rounds."""
        rounds = zip(self.cpu, alone[self.runtime], strict=True)
        return statistics.median(cpu - seconds * 1e6 for cpu, seconds in rounds)

    def percentile(self, percent: float) -> float:
        """Latency in milliseconds at concurrency 1, of all rounds together."""
        latencies = [latency for turn in self.single for latency in turn.latencies]
        return float(np.percentile(latencies, percent)) * 1000 if latencies else float("nan")

    @property
    def throughput(self) -> float:
        """Right answers a second under load: the median of the rounds."""
        return statistics.median(len(turn.latencies) / turn.seconds for turn in self.many)

    @property
    def faults(self) -> list[str]:
        """What went wrong."""
        return [fault for turn in (*self.single, *self.many) for fault in turn.faults]

    @property
    def calls(self) -> int:
        """How many requests were sent."""
        return sum(turn.calls for turn in (*self.single, *self.many))


@dataclass
class Measured:
    """What was read of one server."""

    contender: Contender
    versions: dict[str, str]
    """Of all that is installed beside it."""
    starts: list[float] = field(default_factory=list)
    """Seconds from each start to the first right answer."""
    pss: int = 0
    """Bytes after a short load, with no other server beside it."""
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By the protocol's name."""

    @property
    def start(self) -> float:
        """The faster start, in seconds: the other one may have waited for a disk."""
        return min(self.starts)


@dataclass
class Results:
    """What one run of the benchmark read."""

    concurrency: int
    servers: dict[str, Measured] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Servers that were asked for and could not be measured, with the reason."""
    alone: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """CPU seconds of a run of the model alone, by runtime and round."""
    load: list[float] = field(default_factory=list)
    """Load averages of the machine's last minute, before each round and at the end."""
    additions: list[float] = field(default_factory=list)
    """CPU seconds of 1,000 additions in Python, by round."""
    seconds: float = 0.0
    """The whole run."""

    def endpoint(self, server: str, *protocols: str) -> Endpoint | None:
        """A server by the first of these protocols that it has; None where it was not measured."""
        measured = self.servers.get(server)
        for protocol in protocols:
            if measured is not None and protocol in measured.endpoints:
                return measured.endpoints[protocol]
        return None

    def overhead(self, server: str, *protocols: str) -> float | None:
        """As `Endpoint.overhead`."""
        endpoint = self.endpoint(server, *protocols)
        return None if endpoint is None else endpoint.overhead(self.alone)

    def throughput(self, server: str, *protocols: str) -> float | None:
        """As `Endpoint.throughput`."""
        endpoint = self.endpoint(server, *protocols)
        return None if endpoint is None else endpoint.throughput
