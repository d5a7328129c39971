"""A ranked choice by constraints and a goal, from a report's figures and facts about each project."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.compare import report
from serving.compare.report import DEVICE, IN_PROCESS, PEER, Figure, Report, ReportError, Row, are_equal

PROJECTS = Path(__file__).with_name("projects.toml")
STATES = ("active", "upkeep", "archived")
"""The best maintained first."""
PLACES = ("server", "browser", "edge", "mobile")

GOALS: dict[str, tuple[str, Callable[[Row], Figure | None]]] = {
    "latency": ("p50 {:.2f} ms", lambda row: row.p50),
    "cost": ("{:,.0f} us of CPU a request", lambda row: row.cpu_us),
    "size": (
        "an artifact of {:.2f} MiB",
        lambda row: Figure(row.artifact_bytes / 2**20) if row.artifact_bytes else None,
    ),
}
"""The goals: the format of each, and its figure, of which less is better."""


@dataclass(frozen=True)
class Wish:
    """Constraints (None: no constraint), and the goal among the rows that meet them."""

    score: float | None = None
    """The minimum of the score."""
    p99_ms: float | None = None
    memory_mb: float | None = None
    """The maximum of the server's memory after the load, in MiB."""
    runs_on: str | None = None
    prefer: str = "latency"
    """One of `GOALS`, or `maintenance`: by the state of the project, then by latency."""


@dataclass(frozen=True)
class Decision:
    """The rows that meet the constraints, best first, with their figures; the others with the reason."""

    notes: list[str]
    """The comparison that the figures are from, and their doubts."""
    ranked: list[tuple[Row, str]]
    ruled_out: list[tuple[Row, str]]


def latest(folder: Path, model: str) -> Report:
    """Read the newest report of a folder that is of the model as Tandem serves it. Raises `ReportError`."""
    for found in sorted(folder.glob(f"*/{report.FILE}"), reverse=True):
        made = report.load(found)
        if made.model == model and made.version:
            return made
    raise ReportError(f"there is no report of {model} to decide from; `make compare` makes one")


def projects() -> dict[str, Any]:
    """Return the facts about projects, by target, and their date `as_of`."""
    return tomllib.loads(PROJECTS.read_text())


def decide(made: Report, wish: Wish) -> Decision:
    """Rank the rows that meet the constraints. A figure that was not measured meets none.

    A phone has no server, so for `mobile` these are the runtimes in process, with the scores of their endpoints.
    """
    known = projects()
    goal = wish.prefer if wish.prefer in GOALS else "latency"
    words, figure_of = GOALS[goal]
    kept: list[tuple[int, Figure, Row, str]] = []
    ruled_out = []
    for row in _rows(made, wish):
        project, figure = known.get(row.target, {}), figure_of(row)
        said, broken = _checked(row, wish, project)
        if figure is None or broken:
            ruled_out.append((row, broken or f"its {goal} was not measured"))
            continue
        state = f"; project: {project['state']}, last release {project['released']}" if project else ""
        place = STATES.index(project["state"]) if project and wish.prefer == "maintenance" else 0
        kept.append((place, figure, row, ", ".join([words.format(figure.value), *said]) + state))
    kept.sort(key=lambda one: (one[0], one[1].value))
    ranked = []
    for number, (place, figure, row, because) in enumerate(kept):
        above = kept[max(number - 1, 0)]
        equal = number and goal != "size" and above[0] == place and are_equal(above[1], figure)
        doubt = f"; its {goal} cannot be told from that of {above[2].name}" if equal else ""
        ranked.append((row, because + doubt))
    notes = [f"{made.title}, compared at {made.started}:"]
    if wish.runs_on == "mobile":
        notes.append(f"Figures are of runtimes in process on {made.machine['processor']}, not of a phone.")
    if made.partial:
        notes.append("The comparison was interrupted: figures are missing.")
    return Decision(notes, ranked, ruled_out)


def lines(decision: Decision) -> list[str]:
    """Return the decision as lines for the terminal."""
    found = [f"{place}. {row.name}: {why}" for place, (row, why) in enumerate(decision.ranked, 1)]
    if not found:
        found = ["No row keeps every constraint; loosen the one that ruled out most:"]
    return [*decision.notes, *found, *(f"-  {row.name}: {why}" for row, why in decision.ruled_out)]


def _rows(made: Report, wish: Wish) -> list[Row]:
    """Return the rows to choose from, without other projects' servers."""
    if wish.runs_on != "mobile":
        return [row for row in made.ways if row.kind != PEER]
    scores = {row.way: row.score for row in made.ways if row.score is not None}
    return [
        replace(row, score=scores.get(row.way) if row.score is None else row.score)
        for row in made.rows
        if row.kind in (IN_PROCESS, DEVICE)
    ]


def _checked(row: Row, wish: Wish, project: dict[str, Any]) -> tuple[list[str], str]:
    """Return the figures of the constraints that a row meets, and the first one that it does not, or ""."""
    if not row.works:
        return [], f"{row.state}: {row.reason}"
    if wish.runs_on is not None and wish.runs_on not in project.get("runs_on", ()):
        return [], f"does not run on {wish.runs_on}"
    held = row.memory_idle if row.memory_loaded is None else row.memory_loaded
    constraints = (
        ("score", "", ".4f", row.score, wish.score, "at least"),
        ("p99", " ms", ".2f", row.p99.value if row.p99 else None, wish.p99_ms, "at most"),
        ("memory", " MiB", ".0f", None if held is None else held / 2**20, wish.memory_mb, "at most"),
    )
    said = []
    for name, unit, form, value, limit, side in constraints:
        if limit is None:
            continue
        figure = "unknown" if value is None else f"{value:{form}}{unit}"
        figure = f"{name} {figure}" + (" (not sure)" if name == "p99" and row.p99 and row.p99.reason else "")
        if value is None or (value < limit if side == "at least" else value > limit):
            return [], f"{figure}, {side} {limit:g}{unit} is wanted"
        said.append(figure)
    return said, ""
