"""Each split against the schema, and the splits against each other: figures with limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.data import Dataset
from pipelines.gates import Check
from pipelines.validation import statistics
from pipelines.validation.distances import infinity_norm, jensen_shannon_divergence
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics

GATE = "data"
BALANCE = 0.5
"""How far a class's share of the pictures may be from an equal share, relative to it."""
LABEL_MARGIN = 0.05
"""How much less (or more) often a class's pictures may be nearest to its mean picture than the reference's are.
Fashion-MNIST's own splits differ by up to 0.05 with 500 pictures a class, 0.03 with 1,000; labels of which 10 % were
drawn at random, by 0.09; a swapped class by 0.6."""
STANDARD_ERRORS = 3
"""What chance alone may add to that margin: a class of few pictures is known less exactly."""


def split(name: str, found: Statistics, schema: Schema) -> list[Check]:
    """One split on its own: size, shape, type, range, labels, classes, corrupt pictures."""

    def limit(what: str, figure: float, limit: float, relation: str = "<=") -> Check:
        return Check(GATE, f"{name}: {what}", figure, relation, limit)

    wrong = 0 if (tuple(found.shape), found.dtype) == (schema.shape, "uint8") else found.pictures
    labelled = sum(found.classes)
    shares = np.array(found.classes) / max(1, labelled) * schema.classes
    return [
        limit("pictures", found.pictures, schema.least_pictures, ">="),
        limit("pictures that are not uint8 of the schema's shape", wrong, 0),
        limit("values that are not finite", found.non_finite, 0),
        limit("smallest value", found.minimum, schema.minimum, ">="),
        limit("largest value", found.maximum, schema.maximum),
        limit("pictures of one colour", found.constant, 0),
        limit("labels outside the schema", found.unknown_labels, 0),
        limit("classes without a picture", found.classes.count(0), 0),
        limit("class imbalance", float(np.max(np.abs(shares - 1))), BALANCE),
    ]


def leakage(dataset: Dataset) -> list[Check]:
    """No picture is in two splits, by content."""
    contents = {name: statistics.distinct(part.images) for name, part in statistics.splits(dataset).items()}
    seen = contents["train"] | contents["validation"]
    names = (
        "validation pictures that are training pictures too",
        "test pictures that are training pictures too",
    )
    both = (contents["train"] & contents["validation"], seen & contents["test"])
    return [Check(GATE, name, len(same), "<=", 0) for name, same in zip(names, both, strict=True)]


def skew(found: Mapping[str, Statistics], schema: Schema, classes: Sequence[str]) -> list[Check]:
    """Validation and test split are like the training split they are to judge."""
    checks = []
    for name in ("validation", "test"):
        checks += _distances(
            f"{name}: skew from train", found["train"], found[name], schema.pixels_skew, schema.labels_skew
        )
        checks.append(labels(f"{name}: labels unlike train's", found["train"], found[name], classes))
    return checks


def drift(
    found: Mapping[str, Statistics],
    published: Mapping[str, Statistics],
    version: int,
    schema: Schema,
    classes: Sequence[str],
) -> list[Check]:
    """Each split is like that of the published version. `found` has its agreement with the published mean pictures."""
    checks = []
    for name, now in found.items():
        label = f"{name}: drift from version {version}"
        checks += _distances(label, published[name], now, schema.pixels_drift, schema.labels_drift)
        checks.append(labels(f"{name}: labels unlike version {version}'s", published[name], now, classes))
    return checks


def labels(name: str, reference: Statistics, now: Statistics, classes: Sequence[str]) -> Check:
    """The class whose pictures agree least with its mean picture, against how the reference's do."""
    apart, margins = [], []
    for label in range(len(classes)):
        before, share = reference.agreement[label], now.agreement[label]
        spread = max(before * (1 - before), 0.01)
        counts = (max(1, reference.classes[label]), max(1, now.classes[label]))
        error = math.sqrt(spread * sum(1 / count for count in counts))
        apart.append(abs(before - share))
        margins.append(LABEL_MARGIN + STANDARD_ERRORS * error)
    worst = int(np.argmax(np.array(apart) - margins))
    return Check(GATE, f"{name}, worst class {classes[worst]}", apart[worst], "<=", margins[worst])


def _distances(
    name: str, reference: Statistics, now: Statistics, pixels: float | None, shares: float | None
) -> list[Check]:
    checks = []
    if pixels is not None:
        distance = jensen_shannon_divergence(reference.histogram, now.histogram)
        checks.append(Check(GATE, f"{name}: pixels, Jensen-Shannon", distance, "<=", pixels))
    if shares is not None:
        distance = infinity_norm(reference.classes, now.classes)
        checks.append(Check(GATE, f"{name}: classes, L-infinity", distance, "<=", shares))
    return checks
