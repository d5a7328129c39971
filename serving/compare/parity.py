"""How far the endpoints' answers are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.compare.load import Measurement


@dataclass(frozen=True)
class Agreement:
    """Two endpoints on the same pictures: share of equal classes, largest difference of probabilities."""

    one: str
    other: str
    same_class: float
    probabilities: float
    logits: float


def agreement(one: Measurement, other: Measurement) -> Agreement:
    """Compare two measurements of the same pictures."""
    return Agreement(
        f"{one.target} {one.protocol}",
        f"{other.target} {other.protocol}",
        float(np.mean(one.outputs.logits.argmax(1) == other.outputs.logits.argmax(1))),
        float(np.max(np.abs(one.outputs.probabilities - other.outputs.probabilities))),
        float(np.max(np.abs(one.outputs.logits - other.outputs.logits))),
    )


def agreements(measurements: Sequence[Measurement], source: dict[str, str]) -> list[Agreement]:
    """Each endpoint against the first one that was trained by the same framework (`source` by target)."""
    first: dict[str, Measurement] = {}
    result = []
    for measurement in measurements:
        reference = first.setdefault(source[measurement.target], measurement)
        result.append(agreement(measurement, reference))
    return result
