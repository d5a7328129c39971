"""The data gate: checks of the data before minutes of training are spent on it. The same checks for both
frameworks, over numpy: `docs/validation.md` lists them with their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.base import ModelSpec
from models.data import Dataset
from pipelines.gates import Check
from pipelines.validation import anomalies, statistics
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics, agreement


@dataclass(frozen=True)
class Published:
    """The published version and its statistics."""

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
    if not all(anomalies.fits(split.inputs[t.name], t) for split in found.values() for t in spec.inputs):
        return Validated(found, tuple(checks))
    checks += anomalies.leakage(dataset)
    for name in ("validation", "test"):
        train, now = found["train"], found[name]
        checks += anomalies.distances(f"{name}: skew from train", train, now, schema, "skew")
        checks += anomalies.labels(f"{name}: labels unlike train's", train, now, spec)
    # A model whose inputs or classes are others now has nothing to be compared with.
    before = published.statistics if published else {}
    if published and "train" in before and _form(found["train"]) == _form(before["train"]):
        means = np.array(before["train"].class_means, np.float32)
        for name, part in dataset.splits.items():
            now, images = found[name], statistics.pictures(part, spec)
            if images is not None and len(means):
                now = replace(now, agreement=agreement(images, part.targets, means))
            version = f"version {published.version}"
            checks += anomalies.distances(f"{name}: drift from {version}", before[name], now, schema, "drift")
            checks += anomalies.labels(f"{name}: labels unlike {version}'s", before[name], now, spec)
    return Validated(found, tuple(checks))


def _form(split: Statistics) -> object:
    return {name: values.shape for name, values in split.inputs.items()}, len(split.classes)
