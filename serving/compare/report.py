"""The report of a comparison as data: what was asked for, the machine, and one row for each way to an answer."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import TandemError
from serving.repository import write_atomically

SCHEMA = 3
WORKS, FAILED, UNREACHABLE = "works", "exported but failed", "not reachable"
ENDPOINT, VARIANT, PEER, IN_PROCESS, NULL = "endpoint", "variant", "peer", "in process", "null"
"""What a row is: something deployed, another form of it, another project's server; and beside them the runtime without
a server, and a server without a model."""
FILE = "report.json"
CLEAR = 0.1
"""Figures that are closer than by this share are equal: two runs on a quiet machine differ by as much."""


class ReportError(TandemError):
    """A report cannot be read; the message says why."""


@dataclass
class Figure:
    """A figure from several rounds: their median and half of their range. It is not valid for a `reason`."""

    value: float
    spread: float = 0.0
    reason: str = ""

    @classmethod
    def of(cls, values: list[float], reason: str = "") -> Figure:
        """The figure of the rounds' values."""
        return cls(statistics.median(values), (max(values) - min(values)) / 2, reason)

    def is_apart(self, other: Figure, least: float) -> bool:
        """Return True where the two differ by more than both spreads, and by more than the share `least`."""
        distance = abs(self.value - other.value)
        return distance > self.spread + other.spread and distance > least * min(self.value, other.value)


def are_equal(left: Figure, right: Figure) -> bool:
    """Return True where nobody can tell which of the two is lower."""
    return not left.is_apart(right, CLEAR)


@dataclass
class Point:
    """A rate that was offered, and what became of it. Rates in requests a second, latencies in milliseconds."""

    offered: float
    completed: float
    p50: float
    p99: float
    reason: str = ""
    """Why the rate was not kept up; "" where it was."""
    cpu_us: float | None = None
    """CPU time of the server for one request at this rate, in microseconds."""


@dataclass
class Row:
    """One way from a model to an answer. Figures that were not measured are None or empty."""

    target: str
    protocol: str
    framework: str
    """The framework that trained the weights."""
    runs: str
    """What runs the model, with its version."""
    state: str = WORKS
    reason: str = ""
    """Why the row does not work."""
    kind: str = ENDPOINT
    variant: str = ""
    """What is other than in what is deployed."""
    server: str = ""
    """The server around the runtime."""
    precision: str = "float32"
    conditions: dict[str, Any] = field(default_factory=dict)
    """`threads` in a run, `processes`, `batched`, `instruction set`: what must be equal to be compared."""
    start_seconds: float | None = None
    """From the start of a server's process to ready."""
    artifact_bytes: int = 0
    image_bytes: int | None = None
    """Of the container's image."""
    score: float | None = None
    """The task's score on the samples, through the endpoint."""
    difference: float | None = None
    """Largest absolute difference of any output from the framework's own."""
    p50: Figure | None = None
    p90: Figure | None = None
    p99: Figure | None = None
    quantiles: list[float] = field(default_factory=list)
    """Latency of one request at a time, in milliseconds: its 0th to 100th percentile."""
    sweep: list[Point] = field(default_factory=list)
    """By rate offered, rising."""
    goodput: Figure | None = None
    """The highest rate that was kept up with 99 % of the answers within the target."""
    batches: dict[str, float] = field(default_factory=dict)
    """Rows a second by the number of rows in a request."""
    cpu_us: Figure | None = None
    """CPU time of the server for one request, in microseconds."""
    generator_us: float | None = None
    """The same of the generator."""
    memory_idle: int | None = None
    memory_loaded: int | None = None
    """Bytes that the server's processes hold."""
    million_cost: float | None = None
    """Of a million requests at the highest rate that was kept up, by the price of a core's hour."""
    failures: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    """Where the median's milliseconds go: serving/compare/parts.py."""

    @property
    def way(self) -> str:
        """Target and variant."""
        return f"{self.target} {self.variant}".strip()

    @property
    def name(self) -> str:
        """Target, variant and protocol."""
        return f"{self.way} {self.protocol}".strip()

    @property
    def is_way(self) -> bool:
        """Return True where it is a way to production, and not there to tell what one costs."""
        return self.kind not in (IN_PROCESS, NULL)

    @property
    def works(self) -> bool:
        """Return True where it answered every request."""
        return self.state == WORKS


@dataclass
class Framework:
    """One framework's way to the published version, from the records of its run."""

    name: str
    library: str
    epochs: list[dict[str, float]]
    seconds: float
    """Of the training."""
    score: float | None
    peak_bytes: int
    """What the process grew by while it trained; 0 where no record says."""
    arithmetic: str
    """The precision, and the devices."""
    step_seconds: float
    """The median; 0 where no record says."""
    waiting: float | None
    """The share of the steps' time that waits for input."""
    export_seconds: dict[str, float]
    """By target that has this framework's weights."""
    lines: dict[str, int]
    """Of code: the network, its training, its export, the clients of its targets."""


@dataclass
class Report:
    """One comparison."""

    model: str
    version: int
    score: str
    """What the task's score is called."""
    settings: dict[str, Any]
    """What was asked for: seconds, rounds, the target for the latency."""
    machine: dict[str, Any]
    platform: str
    started: str
    """ISO 8601, in UTC."""
    rows: list[Row]
    parity: list[list[float | None]] = field(default_factory=list)
    """Largest absolute difference of any output, for each pair of rows that answered, in their order."""
    frameworks: list[Framework] = field(default_factory=list)
    load_before: float = 0.0
    load_after: float = 0.0
    busy_before: float = 0.0
    busy_after: float = 0.0
    """The share of the processors' time that others took while nothing was measured, 0 to 1."""
    partial: bool = False
    """It was interrupted."""
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def ways(self) -> list[Row]:
        """The ways to production."""
        return [row for row in self.rows if row.is_way]

    @property
    def working(self) -> list[Row]:
        """The ways to production that answered."""
        return [row for row in self.ways if row.works]


def save(report: Report, folder: Path) -> Path:
    """Write the report's data into a folder; returns the file."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    return path


def load(path: Path) -> Report:
    """Read what `save` wrote. Raises `ReportError`."""
    if path.is_dir():
        path = path / FILE
    try:
        found = json.loads(path.read_text(), object_hook=_revived)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read as a report: {error}") from None
    schema = found.get("schema") if isinstance(found, dict) else getattr(found, "schema", None)
    if schema != SCHEMA:
        raise ReportError(
            f"{path} is a report of schema {schema}: expected {SCHEMA}; compare again with this version"
        )
    if not isinstance(found, Report) or not found.rows or not all(isinstance(row, Row) for row in found.rows):
        raise ReportError(f"{path} is not a whole report: it has other fields")
    return found


KINDS = {
    frozenset(field.name for field in dataclasses.fields(kind)): kind
    for kind in (Figure, Point, Row, Framework, Report)
}


def _revived(fields: dict[str, Any]) -> Any:  # noqa: ANN401
    """What `dataclasses.asdict` has made these fields from."""
    kind = KINDS.get(frozenset(fields))
    return kind(**fields) if kind else fields
