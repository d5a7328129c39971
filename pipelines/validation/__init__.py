"""Is the data what it must be, before minutes of training are spent on it?

The same checks for both frameworks, over numpy: `docs/validation.md` lists them with their limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.base import ModelSpec
from models.data import Dataset
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
    """Statistics by split, and every check that could be made: without sound shapes nothing can be compared."""

    statistics: dict[str, Statistics]
    checks: tuple[Check, ...]


def validate(dataset: Dataset, spec: ModelSpec, schema: Schema, published: Published | None) -> Validated:
    """Hold the data against the schema, its splits against each other, and all against the published version."""
    found = statistics.of_dataset(dataset, spec, schema)
    checks = [check for name, split in found.items() for check in anomalies.split(name, split, spec, schema)]
    sound = all(anomalies.fits(split.inputs[t.name], t) for split in found.values() for t in spec.inputs)
    if sound:
        checks += anomalies.leakage(dataset)
        checks += anomalies.skew(found, spec, schema)
        if published is not None and _comparable(found, published.statistics):
            seen = _seen(found, dataset, spec, published.statistics["train"])
            checks += anomalies.drift(seen, published.statistics, published.version, spec, schema)
    return Validated(found, tuple(checks))


def _seen(
    found: Mapping[str, Statistics], dataset: Dataset, spec: ModelSpec, train: Statistics
) -> dict[str, Statistics]:
    """The statistics with their agreement with the published version's mean pictures, where there are pictures."""
    means, result = np.array(train.class_means, np.float32), dict(found)
    for name, part in dataset.splits.items():
        images = statistics.pictures(part, spec)
        if images is not None and len(means):
            result[name] = replace(found[name], agreement=agreement(images, part.targets, means))
    return result


def _comparable(found: Mapping[str, Statistics], published: Mapping[str, Statistics]) -> bool:
    """A model whose inputs or classes are others now has nothing to be compared with."""
    return all(_form(split) == _form(published[name]) for name, split in found.items())


def _form(split: Statistics) -> object:
    return {name: values.shape for name, values in split.inputs.items()}, len(split.classes)
