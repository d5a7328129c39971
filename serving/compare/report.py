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

SCHEMA = 1
WORKS, FAILED, UNREACHABLE = "works", "exported but failed", "not reachable"
FILE = "report.json"


class ReportError(TandemError):
    """A report cannot be read; the message says why."""


@dataclass
class Figure:
    """A figure from several rounds: their median and half of their range. Not `valid` for a `reason`."""

    value: float
    spread: float = 0.0
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Return True where nothing speaks against it."""
        return not self.reason

    @classmethod
    def of(cls, values: list[float], reason: str = "") -> Figure:
        """The figure of the rounds' values."""
        return cls(statistics.median(values), (max(values) - min(values)) / 2, reason)


@dataclass
class Point:
    """A rate that was offered, and what became of it. Rates in requests a second, latencies in milliseconds."""

    offered: float
    completed: float
    p50: float
    p99: float
    reason: str = ""
    """Why the rate was not kept up; "" where it was."""


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
    precision: str = "float32"
    artifact_bytes: int = 0
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
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Target and protocol."""
        return f"{self.target} {self.protocol}"

    @property
    def works(self) -> bool:
        """Return True where it answered every request."""
        return self.state == WORKS


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
    load_before: float = 0.0
    load_after: float = 0.0
    partial: bool = False
    """It was interrupted."""
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def working(self) -> list[Row]:
        """The rows that answered."""
        return [row for row in self.rows if row.works]


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
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read as a report: {error}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ReportError(
            f"{path} is a report of schema {schema}: expected {SCHEMA}; compare again with this version"
        )
    try:
        document["rows"] = [_row(fields) for fields in document["rows"]]
        return Report(**document)
    except (TypeError, KeyError, AttributeError) as error:
        raise ReportError(f"{path} is not a whole report: {error}") from None


def _row(fields: dict[str, Any]) -> Row:
    for name in ("p50", "p90", "p99", "goodput", "cpu_us"):
        if fields[name] is not None:
            fields[name] = Figure(**fields[name])
    fields["sweep"] = [Point(**point) for point in fields["sweep"]]
    return Row(**fields)
