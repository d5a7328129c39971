"""The report of a comparison: the plan, the machine, and a row for each way from a model to an answer."""

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
WORKS, FAILED, UNREACHABLE = "works", "failed", "not reachable"
ENDPOINT, VARIANT, PEER, IN_PROCESS, NULL = "endpoint", "variant", "peer", "in process", "null"
"""The kinds of rows: a deployed target, a variant of one, another project's server, the runtime without a server, a
server without a model."""
DEVICE = "device"
"""The kind of a runtime for phones, which has no server."""
FILE = "report.json"
CLEAR = 0.1
"""Figures with a smaller relative difference are equal: two runs on a quiet machine differ by as much."""


class ReportError(TandemError):
    """A report cannot be read; the message says why."""


@dataclass
class Figure:
    """The median and half of the range of several rounds. A figure with a `reason` is not valid."""

    value: float
    spread: float = 0.0
    reason: str = ""

    @classmethod
    def of(cls, values: list[float], reason: str = "") -> Figure:
        return cls(statistics.median(values), (max(values) - min(values)) / 2, reason)

    def is_apart(self, other: Figure, least: float) -> bool:
        """Return True if the two differ by more than both spreads, and by more than the share `least`."""
        distance = abs(self.value - other.value)
        return distance > self.spread + other.spread and distance > least * min(self.value, other.value)


def are_equal(left: Figure, right: Figure) -> bool:
    """Return True if the order of the two is uncertain."""
    return not left.is_apart(right, CLEAR)


@dataclass
class Point:
    """An offered rate and its result. Rates are in requests a second, latencies in milliseconds."""

    offered: float
    completed: float
    p50: float
    p99: float
    reason: str = ""
    """The reason why the rate was not sustained, or ""."""
    cpu_us: float | None = None
    """CPU time of the server for one request at this rate, in microseconds."""


@dataclass
class Row:
    """One way from a model to an answer. Figures that were not measured are None or empty."""

    target: str
    protocol: str
    framework: str
    """The framework of the training."""
    runs: str
    """The runtime and server, with versions."""
    state: str = WORKS
    reason: str = ""
    """The reason of a state other than `works`."""
    kind: str = ENDPOINT
    variant: str = ""
    """The difference from the deployed target."""
    server: str = ""
    """The server around the runtime."""
    precision: str = "float32"
    conditions: dict[str, Any] = field(default_factory=dict)
    """`threads` of a run, `processes`, `batched`, `instruction set`: equal in a fair comparison."""
    start_seconds: float | None = None
    """From the start of the process to ready."""
    artifact_bytes: int = 0
    image_bytes: int | None = None
    """The size of the container's image."""
    score: float | None = None
    """The task's score on the samples, through the endpoint."""
    difference: float | None = None
    """Largest absolute difference of any output from the framework's."""
    p50: Figure | None = None
    p90: Figure | None = None
    p99: Figure | None = None
    quantiles: list[float] = field(default_factory=list)
    """Percentiles 0 to 100 of the latency of one request at a time, in milliseconds."""
    sweep: list[Point] = field(default_factory=list)
    """By offered rate, ascending."""
    goodput: Figure | None = None
    """The highest rate with 99 % of the responses within the target."""
    batches: dict[str, float] = field(default_factory=dict)
    """Rows a second by the number of rows in a request."""
    cpu_us: Figure | None = None
    """CPU time of the server for one request, in microseconds."""
    generator_us: float | None = None
    """CPU time of the generator for one request, in microseconds."""
    memory_idle: int | None = None
    memory_loaded: int | None = None
    """Resident bytes of the server's processes; in process, what the model added."""
    million_cost: float | None = None
    """The cost of a million requests at the highest sustained rate, by the price of a core's hour."""
    failures: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    """The parts of the median in milliseconds: serving/compare/parts.py."""

    @property
    def way(self) -> str:
        return f"{self.target} {self.variant}".strip()

    @property
    def name(self) -> str:
        return f"{self.way} {self.protocol}".strip()

    @property
    def is_way(self) -> bool:
        """Return True if it is a way to production, and not only a reference."""
        return self.kind not in (IN_PROCESS, DEVICE, NULL)

    @property
    def works(self) -> bool:
        """Return True if it answered every request."""
        return self.state == WORKS


@dataclass
class Framework:
    """A framework's way to the published version, from the records of its run."""

    name: str
    library: str
    epochs: list[dict[str, float]]
    seconds: float
    """Duration of the training."""
    score: float | None
    peak_bytes: int
    """Growth of the process during training; 0 if unknown."""
    arithmetic: str
    """The precision, and the devices."""
    step_seconds: float
    """The median; 0 where no record says."""
    waiting: float | None
    """The share of the steps' time that waits for input."""
    export_seconds: dict[str, float]
    """By target with this framework's weights."""
    lines: dict[str, int]
    """Lines of code of the network, its training, its export, and the clients of its targets."""
    loss_difference: float = 0.0
    """Largest relative difference of the losses of the first steps from TensorFlow's."""


@dataclass
class Report:
    """One comparison."""

    model: str
    version: int
    score: str
    """The name of the task's score."""
    settings: dict[str, Any]
    """The plan: seconds, rounds, the target for the latency."""
    machine: dict[str, Any]
    platform: str
    started: str
    """ISO 8601, in UTC."""
    rows: list[Row]
    parity: list[list[float | None]] = field(default_factory=list)
    """Largest absolute difference of any output, for each pair of working rows, in their order."""
    frameworks: list[Framework] = field(default_factory=list)
    load_before: float = 0.0
    load_after: float = 0.0
    busy_before: float = 0.0
    busy_after: float = 0.0
    """The share of the CPU time of other processes without load, 0 to 1."""
    partial: bool = False
    """True if it was interrupted."""
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def title(self) -> str:
        """The model, and its version if Tandem serves it."""
        return f"{self.model}, version {self.version}" if self.version else self.model

    @property
    def ways(self) -> list[Row]:
        return [row for row in self.rows if row.is_way]

    @property
    def working(self) -> list[Row]:
        return [row for row in self.ways if row.works]


def save(report: Report, folder: Path) -> Path:
    """Write the report as JSON into a folder; returns the file."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    return path


def load(path: Path) -> Report:
    """Read a report of `save`. Raises `ReportError`."""
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
    """Return the object of fields from `dataclasses.asdict`."""
    kind = KINDS.get(frozenset(fields))
    return kind(**fields) if kind else fields
