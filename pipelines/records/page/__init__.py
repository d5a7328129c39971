"""The page of a run, published or refused: one HTML file without external files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import ModelSpec
from models.classification import Classification
from pipelines.gates import Check
from pipelines.records.lineage import Run
from pipelines.training.record import History
from pipelines.validation import Published
from pipelines.validation.statistics import Statistics
from serving import repository
from serving.compare.page import template

FILE = "index.html"
FOLDER = Path(__file__).parent


@dataclass
class Figures:
    """The results of a run; a run that ended early leaves the later ones empty."""

    spec: ModelSpec
    checks: list[Check] = field(default_factory=list)
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    published: Published | None = None
    """The version that is served during the run."""
    histories: Mapping[str, History] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The task's metrics on the test rows, by framework."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a classification; empty otherwise."""
        return self.spec.task.classes if isinstance(self.spec.task, Classification) else ()

    @property
    def overall(self) -> list[str]:
        """The metrics over all classes."""
        return [name for own in list(self.metrics.values())[:1] for name in own if "/" not in name]


def write(folder: Path, run: Run, figures: Figures) -> Path:
    """Write the page of a run into its folder; returns the file."""
    path = folder / FILE
    repository.write_atomically(path, render(run, figures))
    return path


def render(run: Run, figures: Figures) -> str:
    """Return the page's HTML."""
    from pipelines.records.page import plots

    published = figures.published
    before = {}
    if published and "train" in published.statistics:
        before[f"version {published.version}, train"] = published.statistics["train"]
    own: dict[str, Any] = {
        "run": run,
        "figures": figures,
        "failed": [check for check in figures.checks if check.refuses],
        "noted": [check for check in figures.checks if not check.passed and not check.refuses],
        "gates": {
            gate: [check for check in figures.checks if check.gate == gate]
            for gate in dict.fromkeys(check.gate for check in figures.checks)
        },
        "plots": plots,
        "splits": before | dict(figures.statistics),
    }
    return template(FOLDER, figure).render(own)


def figure(value: float) -> str:
    """Return a number in four digits: 55,000, 0.0107, 2.5e-05."""
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"
