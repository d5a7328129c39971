"""The page of a run, published or refused: one HTML file without external files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.base import ModelSpec
from models.classification import Classification
from pipelines.gates import Check
from pipelines.gates.networks import Evaluated
from pipelines.records.lineage import Run
from pipelines.training.record import Trained
from pipelines.validation import Published, Validated
from serving.compare.page import template

FILE = "index.html"
FOLDER = Path(__file__).parent


def render(run: Run, spec: ModelSpec, checks: Sequence[Check], values: Sequence[object]) -> str:
    """Return the page's HTML. `values` are what the steps took and gave: a run that ended early has fewer."""
    from pipelines.records.page import plots

    last: dict[type, Any] = {type(value): value for value in values}
    published, validated, evaluated = (last.get(kind) for kind in (Published, Validated, Evaluated))
    statistics, metrics = validated.statistics if validated else {}, evaluated.metrics if evaluated else {}
    before = {}
    if published and "train" in published.statistics:
        before[f"version {published.version}, train"] = published.statistics["train"]
    fields: dict[str, Any] = {
        "run": run,
        "checks": checks,
        "failed": [check for check in checks if check.refuses],
        "noted": [check for check in checks if not check.passed and not check.refuses],
        "gates": {
            gate: [check for check in checks if check.gate == gate]
            for gate in dict.fromkeys(check.gate for check in checks)
        },
        "plots": plots,
        "published": published,
        "statistics": statistics,
        "splits": before | statistics,
        "watched": spec.task.watched,
        "histories": {value.framework: value.history for value in values if isinstance(value, Trained)},
        "metrics": metrics,
        "overall": [name for own in list(metrics.values())[:1] for name in own if "/" not in name],
        "classes": spec.task.classes if isinstance(spec.task, Classification) else (),
    }
    return template(FOLDER, figure).render(fields)


def figure(value: float) -> str:
    """Return a number in four digits: 55,000, 0.0107, 2.5e-05."""
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"
