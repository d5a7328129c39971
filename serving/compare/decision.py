"""From constraints and a goal to a ranked choice, by a report's figures and what is known of each project."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.compare.report import PEER, Report, Row

PROJECTS = Path(__file__).with_name("projects.toml")
STATES = ("active", "upkeep", "archived")
"""From the best kept one."""
PLACES = ("server", "browser", "edge", "mobile")

Figure = Callable[[Row], float | None]

GOALS: dict[str, tuple[str, Figure]] = {
    "latency": ("p50 {:.2f} ms", lambda row: row.p50.value if row.p50 else None),
    "cost": ("{:,.0f} us of CPU a request", lambda row: row.cpu_us.value if row.cpu_us else None),
    "size": ("an artifact of {:.2f} MiB", lambda row: row.artifact_bytes / 2**20 or None),
}
"""What to prefer: how it is said, and the figure, of which less is better."""


@dataclass(frozen=True)
class Wish:
    """Constraints, None where there is none, and what to prefer among the rows that keep them."""

    score: float | None = None
    """At least."""
    p99_ms: float | None = None
    memory_mb: float | None = None
    """Of the server, in MiB, after the load."""
    runs_on: str | None = None
    prefer: str = "latency"
    """One of `GOALS`, or `maintenance`: the best kept project first, then the latency."""


@dataclass(frozen=True)
class Choice:
    """A row that keeps the constraints, and the figures that decided."""

    row: Row
    because: str


@dataclass(frozen=True)
class Decision:
    """The best row first, and why each other row was ruled out."""

    ranked: list[Choice]
    ruled_out: list[tuple[Row, str]]


def projects() -> dict[str, Any]:
    """What is known of each target's project, by target, and `as_of`."""
    return tomllib.loads(PROJECTS.read_text())


def decide(report: Report, wish: Wish) -> Decision:
    """Rank the rows that keep the constraints. A figure that was not measured keeps none."""
    known = projects()
    goal = wish.prefer if wish.prefer in GOALS else "latency"
    words, figure = GOALS[goal]
    ranked: list[tuple[tuple[int, float], Choice]] = []
    ruled_out = []
    for row in report.ways:
        if row.kind == PEER:
            continue
        project = known.get(row.target, {})
        value = figure(row)
        broken = _broken(row, wish, project) or ("" if value is not None else f"its {goal} was not measured")
        if broken or value is None:
            ruled_out.append((row, broken))
            continue
        place = STATES.index(project["state"]) if project and wish.prefer == "maintenance" else 0
        state = f"; project: {project['state']}, last release {project['released']}" if project else ""
        ranked.append(((place, value), Choice(row, words.format(value) + _kept(row, wish) + state)))
    ranked.sort(key=lambda pair: pair[0])
    return Decision([choice for _, choice in ranked], ruled_out)


def lines(decision: Decision) -> list[str]:
    """The decision for the terminal."""
    found = [f"{place}. {one.row.name}: {one.because}" for place, one in enumerate(decision.ranked, 1)]
    if not found:
        found = ["No row keeps every constraint; loosen the one that ruled out most:"]
    return found + [f"-  {row.name}: {why}" for row, why in decision.ruled_out]


def _broken(row: Row, wish: Wish, project: dict[str, Any]) -> str:
    """The first constraint that a row does not keep; "" where it keeps all."""
    if not row.works:
        return f"{row.state}: {row.reason}"
    if wish.runs_on is not None and wish.runs_on not in project.get("runs_on", ()):
        return f"does not run on {wish.runs_on}"
    if wish.score is not None and (row.score is None or row.score < wish.score):
        return f"score {_said(row.score, '.4f')}, at least {wish.score:g} is wanted"
    p99 = row.p99.value if row.p99 else None
    if wish.p99_ms is not None and (p99 is None or p99 > wish.p99_ms):
        return f"p99 {_said(p99, '.2f')} ms, at most {wish.p99_ms:g} ms is wanted"
    memory = _memory(row)
    if wish.memory_mb is not None and (memory is None or memory > wish.memory_mb):
        return f"memory {_said(memory, '.0f')} MiB, at most {wish.memory_mb:g} MiB is wanted"
    return ""


def _kept(row: Row, wish: Wish) -> str:
    """The figures of the constraints that a row keeps."""
    kept = []
    if wish.score is not None:
        kept.append(f"score {_said(row.score, '.4f')}")
    if wish.p99_ms is not None and row.p99:
        kept.append(f"p99 {row.p99.value:.2f} ms")
    if wish.memory_mb is not None:
        kept.append(f"{_said(_memory(row), '.0f')} MiB")
    return "".join(f", {text}" for text in kept)


def _memory(row: Row) -> float | None:
    held = row.memory_loaded or row.memory_idle
    return None if held is None else held / 2**20


def _said(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}}"
