"""How far the endpoints' answers are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.task import Task
from serving.compare.load import Measurement


@dataclass(frozen=True)
class Agreement:
    """Two endpoints on the same rows: share of equal answers (None where answers are not one or another), and the
    largest difference of each output."""

    endpoint: str
    reference: str
    same: float | None
    differences: dict[str, float]


def agreement(measured: Measurement, reference: Measurement, task: Task) -> Agreement:
    """Compare two measurements of the same rows."""
    first = task.outputs[0].name
    return Agreement(
        f"{measured.target} {measured.protocol}",
        f"{reference.target} {reference.protocol}",
        task.agreement(measured.outputs[first], reference.outputs[first]),
        {
            name: float(np.max(np.abs(array - reference.outputs[name])))
            for name, array in measured.outputs.items()
        },
    )


def agreements(measurements: Sequence[Measurement], source: dict[str, str], task: Task) -> list[Agreement]:
    """Each endpoint against the first one that was trained by the same framework (`source` by target)."""
    first: dict[str, Measurement] = {}
    result = []
    for measurement in measurements:
        reference = first.setdefault(source[measurement.target], measurement)
        result.append(agreement(measurement, reference, task))
    return result
