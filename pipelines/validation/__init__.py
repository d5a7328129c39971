"""Is the data what it must be, before six minutes of training are spent on it?

The same checks for both frameworks, over numpy: `docs/validation.md` lists them with their limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.data import Dataset
from pipelines.gates import Check
from pipelines.validation import anomalies, statistics
from pipelines.validation.labels import agreement
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics


@dataclass(frozen=True)
class Published:
    """What the published version was made from."""

    version: int
    statistics: Mapping[str, Statistics]


@dataclass(frozen=True)
class Validated:
    """Statistics by split, and every check that could be made: without a sound shape nothing can be compared."""

    statistics: dict[str, Statistics]
    checks: list[Check]


def validate(
    dataset: Dataset, schema: Schema, classes: Sequence[str], published: Published | None
) -> Validated:
    """Hold the data against the schema, its splits against each other, and all against the published version."""
    found = statistics.of_dataset(dataset, schema.classes)
    checks = [check for name, own in found.items() for check in anomalies.split(name, own, schema)]
    if all(tuple(own.shape) == schema.shape for own in found.values()):
        checks += anomalies.leakage(dataset)
        checks += anomalies.skew(found, schema, classes)
        if published is not None and _comparable(found, published.statistics):
            means = np.array(published.statistics["train"].class_means, np.float32)
            seen = {
                name: replace(found[name], agreement=agreement(part.images, part.labels, means))
                for name, part in statistics.splits(dataset).items()
            }
            checks += anomalies.drift(seen, published.statistics, published.version, schema, classes)
    return Validated(found, checks)


def _comparable(found: Mapping[str, Statistics], published: Mapping[str, Statistics]) -> bool:
    """A model whose pictures or classes are others now has nothing to be compared with."""
    return all(
        (own.shape, len(own.classes)) == (published[name].shape, len(published[name].classes))
        for name, own in found.items()
    )
