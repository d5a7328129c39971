"""Each split against the schema, and splits against each other: figures with limits. Distances are measured as
TensorFlow Data Validation does (anomalies/metrics.cc)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.base import ModelSpec
from models.classification import Classification
from models.data import Dataset
from models.signature import Tensor
from pipelines.gates import Check
from pipelines.validation import statistics
from pipelines.validation.schema import Feature, Schema
from pipelines.validation.statistics import Statistics, Values

GATE = "data"
Distance = Callable[[Sequence[int], Sequence[int]], float]
BALANCE = 0.5
"""Largest difference of a class's share from an equal share, relative to the equal share."""
LABEL_MARGIN = 0.05
"""Largest difference, to the reference, of the share of a class's pictures that are nearest to its mean picture.
Fashion-MNIST's own splits differ by up to 0.05 with 500 pictures a class, 0.03 with 1,000; labels of which 10 % were
drawn at random, by 0.09; a swapped class by 0.6."""
STANDARD_ERRORS = 3
"""Standard errors added to that margin: the share of a class with few pictures is less exact."""


def split(name: str, found: Statistics, spec: ModelSpec, schema: Schema) -> list[Check]:
    """Check one split: size, shapes, types, ranges, labels, classes, corrupt pictures."""
    checks = []

    def hold(what: str, figure: float, limit: float, relation: str = "<=") -> None:
        checks.append(Check(GATE, f"{name}: {what}", figure, relation, limit))

    def hold_values(what: str, values: Values, limits: Feature) -> None:
        hold(f"{what}: values that are not finite", values.non_finite, 0)
        if limits.minimum is not None:
            hold(f"{what}: smallest value", values.minimum, limits.minimum, ">=")
        if limits.maximum is not None:
            hold(f"{what}: largest value", values.maximum, limits.maximum)

    hold("rows", found.rows, schema.least_rows, ">=")
    for tensor in spec.inputs:
        values = found.inputs[tensor.name]
        kept = f"uint8 or {tensor.dtype}" if tensor.content == "picture" else tensor.dtype
        unfit = "" if fits(values, tensor) else f" (they are {values.dtype} {values.shape})"
        what = f"{tensor.name}: rows that are not {kept} {list(tensor.row)}{unfit}"
        hold(what, found.rows if unfit else 0, 0)
        hold_values(tensor.name, values, schema.inputs[tensor.name])
    if found.targets is not None:
        hold_values("targets", found.targets, schema.label)
    if spec.signature.picture is not None:
        hold("pictures of one colour", found.constant, 0)
    if found.classes:
        shares = np.array(found.classes) / max(1, sum(found.classes)) * len(found.classes)
        hold("labels outside the schema", found.unknown_labels, 0)
        hold("classes without a row", found.classes.count(0), 0)
        hold("class imbalance", float(np.max(np.abs(shares - 1))), BALANCE)
    return checks


def fits(values: Values, tensor: Tensor) -> bool:
    """Return True if rows have the signature's shape and dtype; a picture may be uint8."""
    dtypes = {tensor.dtype, "uint8"} if tensor.content == "picture" else {tensor.dtype}
    return tensor.admits(tuple(values.shape)) and values.dtype in dtypes


def leakage(dataset: Dataset) -> list[Check]:
    """Check that no row is in two splits, by the content of its inputs."""
    contents = {name: statistics.distinct(part) for name, part in dataset.splits.items()}
    train, validation, test = contents["train"], contents["validation"], contents["test"]
    both = {"validation": train & validation, "test": (train | validation) & test}
    return [
        Check(GATE, f"{name} rows that are training rows too", len(same), "<=", 0)
        for name, same in both.items()
    ]


def distances(name: str, reference: Statistics, now: Statistics, schema: Schema, kind: str) -> list[Check]:
    """Check the distances from the reference; `kind`, `skew` or `drift`, names their limit in the schema."""
    checks = []

    def hold(what: str, feature: Feature, distance: Distance, before: list[int], after: list[int]) -> None:
        threshold = getattr(feature, kind)
        # The published version's schema may have had no range.
        if threshold is not None and before and after:
            checks.append(Check(GATE, f"{name}: {what}", distance(before, after), "<=", threshold))

    for feature, values in now.inputs.items():
        what, before = f"{feature}, Jensen-Shannon", reference.inputs[feature].histogram
        hold(what, schema.inputs[feature], jensen_shannon_divergence, before, values.histogram)
    hold("classes, L-infinity", schema.label, infinity_norm, reference.classes, now.classes)
    if now.targets and reference.targets:
        before, after = reference.targets.histogram, now.targets.histogram
        hold("targets, Jensen-Shannon", schema.label, jensen_shannon_divergence, before, after)
    return checks


def labels(name: str, reference: Statistics, now: Statistics, spec: ModelSpec) -> list[Check]:
    """Compare the worst class's agreement with its mean picture with that of the reference."""
    if not reference.agreement or not isinstance(spec.task, Classification):
        return []
    before, share = np.array(reference.agreement), np.array(now.agreement)
    counts = np.maximum(1, [reference.classes, now.classes])
    errors = np.sqrt(np.maximum(before * (1 - before), 0.01) * np.sum(1 / counts, axis=0))
    apart, margins = np.abs(before - share), LABEL_MARGIN + STANDARD_ERRORS * errors
    worst = int(np.argmax(apart - margins))
    told = f"{name}, worst class {spec.task.classes[worst]}"
    return [Check(GATE, told, float(apart[worst]), "<=", float(margins[worst]))]


def infinity_norm(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the largest difference of a category's share, as TFDV measures it; 1 if one side is empty."""
    if not sum(left) or not sum(right):
        return 1.0
    return float(np.max(np.abs(np.divide(left, sum(left)) - np.divide(right, sum(right)))))


def jensen_shannon_divergence(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the divergence of two histograms over the same buckets, base 2: 0 if equal, 1 if they share no bucket."""
    if not sum(left) or not sum(right):
        return 1.0
    shares = np.stack([np.divide(left, sum(left)), np.divide(right, sum(right))])
    quotients = shares / shares.mean(axis=0).clip(np.finfo(float).tiny)
    bits = shares * np.log2(quotients, where=shares > 0, out=np.zeros_like(shares))
    return min(1.0, float(bits.sum()) / 2)
