"""Each split against the schema, and the splits against each other: figures with limits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from models.base import ModelSpec
from models.classification import Classification
from models.data import Dataset
from models.signature import Tensor
from pipelines.gates import Check
from pipelines.validation import statistics
from pipelines.validation.distances import infinity_norm, jensen_shannon_divergence
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics, Values

GATE = "data"
BALANCE = 0.5
"""How far a class's share of the pictures may be from an equal share, relative to it."""
LABEL_MARGIN = 0.05
"""How much less (or more) often a class's pictures may be nearest to its mean picture than the reference's are.
Fashion-MNIST's own splits differ by up to 0.05 with 500 pictures a class, 0.03 with 1,000; labels of which 10 % were
drawn at random, by 0.09; a swapped class by 0.6."""
STANDARD_ERRORS = 3
"""What chance alone may add to that margin: a class of few pictures is known less exactly."""


def split(name: str, found: Statistics, spec: ModelSpec, schema: Schema) -> list[Check]:
    """One split on its own: size, shapes, types, ranges, labels, classes, corrupt pictures."""

    def limit(what: str, figure: float, limit: float, relation: str = "<=") -> Check:
        return Check(GATE, f"{name}: {what}", figure, relation, limit)

    checks = [limit("rows", found.rows, schema.least_rows, ">=")]
    for tensor in spec.inputs:
        values, feature = found.inputs[tensor.name], schema.inputs[tensor.name]
        right = fits(values, tensor)
        kept = f"uint8 or {tensor.dtype}" if tensor.content == "picture" else tensor.dtype
        checks += [
            limit(
                f"{tensor.name}: rows that are not {kept} {list(tensor.row)}", 0 if right else found.rows, 0
            ),
            limit(f"{tensor.name}: values that are not finite", values.non_finite, 0),
        ]
        if feature.range is not None:
            checks += [
                limit(f"{tensor.name}: smallest value", values.minimum, feature.range[0], ">="),
                limit(f"{tensor.name}: largest value", values.maximum, feature.range[1]),
            ]
    if spec.signature.picture is not None:
        checks.append(limit("pictures of one colour", found.constant, 0))
    if found.classes:
        shares = np.array(found.classes) / max(1, sum(found.classes)) * len(found.classes)
        checks += [
            limit("labels outside the schema", found.unknown_labels, 0),
            limit("classes without a row", found.classes.count(0), 0),
            limit("class imbalance", float(np.max(np.abs(shares - 1))), BALANCE),
        ]
    elif found.targets is not None:
        checks.append(limit("targets that are not finite", found.targets.non_finite, 0))
    return checks


def fits(values: Values, tensor: Tensor) -> bool:
    """Rows are of the signature's shape and dtype; a picture may be kept as uint8."""
    dtypes = {tensor.dtype, "uint8"} if tensor.content == "picture" else {tensor.dtype}
    return tensor.admits(tuple(values.shape)) and values.dtype in dtypes


def leakage(dataset: Dataset) -> list[Check]:
    """No row is in two splits, by the content of its inputs."""
    contents = {name: statistics.distinct(part) for name, part in dataset.splits.items()}
    seen = contents["train"] | contents["validation"]
    names = ("validation rows that are training rows too", "test rows that are training rows too")
    both = (contents["train"] & contents["validation"], seen & contents["test"])
    return [Check(GATE, name, len(same), "<=", 0) for name, same in zip(names, both, strict=True)]


def skew(found: Mapping[str, Statistics], spec: ModelSpec, schema: Schema) -> list[Check]:
    """Validation and test split are like the training split they are to judge."""
    checks = []
    for name in ("validation", "test"):
        checks += _distances(f"{name}: skew from train", found["train"], found[name], schema, "skew")
        checks += labels(f"{name}: labels unlike train's", found["train"], found[name], spec)
    return checks


def drift(
    found: Mapping[str, Statistics],
    published: Mapping[str, Statistics],
    version: int,
    spec: ModelSpec,
    schema: Schema,
) -> list[Check]:
    """Each split is like that of the published version. `found` has its agreement with the published mean pictures."""
    checks = []
    for name, now in found.items():
        label = f"{name}: drift from version {version}"
        checks += _distances(label, published[name], now, schema, "drift")
        checks += labels(f"{name}: labels unlike version {version}'s", published[name], now, spec)
    return checks


def labels(name: str, reference: Statistics, now: Statistics, spec: ModelSpec) -> list[Check]:
    """The class whose pictures agree least with its mean picture, against how the reference's do."""
    if not reference.agreement or not isinstance(spec.task, Classification):
        return []
    apart, margins = [], []
    for label in range(len(reference.agreement)):
        before, share = reference.agreement[label], now.agreement[label]
        spread = max(before * (1 - before), 0.01)
        counts = (max(1, reference.classes[label]), max(1, now.classes[label]))
        error = math.sqrt(spread * sum(1 / count for count in counts))
        apart.append(abs(before - share))
        margins.append(LABEL_MARGIN + STANDARD_ERRORS * error)
    worst = int(np.argmax(np.array(apart) - margins))
    told = f"{name}, worst class {spec.task.classes[worst]}"
    return [Check(GATE, told, apart[worst], "<=", margins[worst])]


def _distances(
    name: str, reference: Statistics, now: Statistics, schema: Schema, comparator: str
) -> list[Check]:
    checks = []
    for feature_name, values in now.inputs.items():
        threshold = getattr(schema.inputs[feature_name], comparator)
        if threshold is not None and values.histogram:
            distance = jensen_shannon_divergence(reference.inputs[feature_name].histogram, values.histogram)
            checks.append(Check(GATE, f"{name}: {feature_name}, Jensen-Shannon", distance, "<=", threshold))
    threshold = getattr(schema.label, comparator)
    if threshold is not None and now.classes:
        distance = infinity_norm(reference.classes, now.classes)
        checks.append(Check(GATE, f"{name}: classes, L-infinity", distance, "<=", threshold))
    elif threshold is not None and now.targets and reference.targets and now.targets.histogram:
        distance = jensen_shannon_divergence(reference.targets.histogram, now.targets.histogram)
        checks.append(Check(GATE, f"{name}: targets, Jensen-Shannon", distance, "<=", threshold))
    return checks
