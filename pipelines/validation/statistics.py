"""The statistics of a split: those of TensorFlow Data Validation, and further ones for pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import ModelSpec
from models.classification import Classification
from models.data import Dataset, Rows
from pipelines.validation.schema import Feature, Schema

CHUNK = 1_000
"""Pictures of a step: their intermediate arrays fit into the processor's cache."""
BUCKETS = 10
"""Buckets of equal width over a feature's range: as many as TFDV's standard histogram has."""


@dataclass(frozen=True)
class Values:
    """The values of one input, or of the targets of a regression, in JSON's types. They are those that the
    endpoints take: uint8 pictures are divided by 255. `minimum` to `zeros` are over the finite ones."""

    shape: list[int]
    """The shape of one row."""
    dtype: str
    values: int
    minimum: float
    maximum: float
    mean: float
    std: float
    zeros: int
    non_finite: int
    histogram: list[int]
    """Finite values by bucket of the schema's range; what lies outside is in the first or the last one. Empty where
    the schema has no range."""


@dataclass
class Statistics:
    """One split. Lists by class have the order of the labels, and are empty where there are no classes."""

    rows: int
    inputs: dict[str, Values]
    duplicates: int
    """Rows whose inputs equal another row's in this split."""
    targets: Values | None = None
    """The targets of a regression."""
    classes: list[int] = field(default_factory=list)
    """The number of rows of each class."""
    unknown_labels: int = 0
    constant: int = 0
    """Pictures of one colour."""
    class_means: list[list[float]] = field(default_factory=list)
    """The mean picture of each class, flat; zeros if a class is missing."""
    agreement: list[float] = field(default_factory=list)
    """The share of each class's pictures that are nearest to its mean picture in the training split."""


def of_dataset(dataset: Dataset, spec: ModelSpec, schema: Schema) -> dict[str, Statistics]:
    """Return the statistics of every split by name."""
    images, means = pictures(dataset.train, spec), None
    if images is not None and isinstance(spec.task, Classification):
        means = class_means(images, dataset.train.targets, len(spec.task.classes))
    return {name: of(part, spec, schema, means) for name, part in dataset.splits.items()}


def pictures(rows: Rows, spec: ModelSpec) -> NDArray[Any] | None:
    """Return the only input, if it is pictures; otherwise None."""
    picture = spec.signature.picture
    return None if picture is None else rows.inputs[picture.name]


def of(rows: Rows, spec: ModelSpec, schema: Schema, means: NDArray[np.float32] | None) -> Statistics:
    """Return the statistics of some rows. `means` are the training split's mean pictures, if they are pictures."""
    images, task = pictures(rows, spec), spec.task
    result = Statistics(
        rows=len(rows),
        inputs={name: values_of(array, schema.inputs[name]) for name, array in rows.inputs.items()},
        duplicates=len(rows) - len(distinct(rows)),
    )
    if isinstance(task, Classification):
        known = rows.targets[(rows.targets >= 0) & (rows.targets < len(task.classes))]
        result.classes = np.bincount(known, minlength=len(task.classes)).tolist()
        result.unknown_labels = len(rows) - len(known)
    else:
        result.targets = values_of(rows.targets, schema.label)
    if images is not None and images.size:
        flat = images.reshape(len(images), -1)
        result.constant = int(np.sum(flat.min(axis=1) == flat.max(axis=1)))
    if images is not None and means is not None:
        own_means = class_means(images, rows.targets, len(means)).astype(float)
        result.class_means = np.round(own_means, 4).tolist()
        result.agreement = agreement(images, rows.targets, means)
    return result


def values_of(array: NDArray[Any], feature: Feature) -> Values:
    """Return the statistics of an array [N, ...]."""
    values, counts = _value_counts(array)
    finite = np.isfinite(values)
    values, counts = values[finite], counts[finite]
    total = max(1, int(counts.sum()))
    mean = float(values @ counts) / total
    histogram: list[int] = []
    if feature.range is not None:
        inside = np.clip(values, *feature.range)
        histogram = np.histogram(inside, BUCKETS, feature.range, weights=counts)[0].astype(int).tolist()
    return Values(
        shape=list(array.shape[1:]),
        dtype=str(array.dtype),
        values=array.size,
        minimum=float(values.min()) if len(values) else 0.0,
        maximum=float(values.max()) if len(values) else 0.0,
        mean=mean,
        std=float(np.sqrt((values - mean) ** 2 @ counts / total)),
        zeros=int(counts[values == 0].sum()),
        non_finite=array.size - int(counts.sum()),
        histogram=histogram,
    )


def distinct(rows: Rows) -> set[bytes]:
    """Return the distinct rows, as bytes of their inputs."""
    arrays = [np.ascontiguousarray(array) for _, array in sorted(rows.inputs.items())]
    return {b"".join(array[row].tobytes() for array in arrays) for row in range(len(rows))}


def class_means(images: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """Return the mean picture of each class, float32 [classes, H * W * C], values 0..1; zeros if a class is missing."""
    flat = _flat(images)
    means = np.zeros((classes, flat.shape[1]), np.float32)
    for label in np.intersect1d(labels, range(classes)):
        means[label] = flat[labels == label].mean(axis=0) / scale(images)
    return means


def agreement(images: NDArray[Any], labels: NDArray[Any], means: NDArray[np.float32]) -> list[float]:
    """Return the share of each class's pictures [N, H, W, C] that are nearest to its mean picture; 0 if it has none.

    Labels that are swapped or drawn at random lower it long before they lower a trained network's accuracy.
    """
    flat, nearest = _flat(images), np.full(len(images), -1)
    if flat.shape[1] == means.shape[1]:
        half_norms = np.sum(means**2, axis=1) / 2
        for start in range(0, len(flat), CHUNK):
            part = flat[start : start + CHUNK].astype(np.float32) / scale(images)
            nearest[start : start + CHUNK] = np.argmax(part @ means.T - half_norms, axis=1)
    right = nearest == labels
    own = (right[labels == label] for label in range(len(means)))
    return [float(part.mean()) if len(part) else 0.0 for part in own]


def _flat(images: NDArray[Any]) -> NDArray[Any]:
    """Return pictures as [N, H * W * C], with 0 for NaN and infinity."""
    flat = images.reshape(len(images), -1)
    return flat if flat.dtype == np.uint8 else np.nan_to_num(flat, nan=0, posinf=0, neginf=0)


def scale(images: NDArray[Any]) -> np.float32:
    """Return the divisor that brings pictures of this dtype into 0..1."""
    return np.float32(255 if images.dtype == np.uint8 else 1)


def to_json(statistics: Mapping[str, Statistics]) -> str:
    """Return the statistics of every split as JSON."""
    return json.dumps({name: asdict(split) for name, split in statistics.items()}) + "\n"


def from_json(text: str) -> dict[str, Statistics]:
    """Read the JSON of `to_json`. Raises `ValueError`, `TypeError` or `KeyError` for another form."""
    splits = {}
    for name, fields in json.loads(text).items():
        inputs = {key: Values(**values) for key, values in fields["inputs"].items()}
        targets = None if fields["targets"] is None else Values(**fields["targets"])
        splits[name] = Statistics(**fields | {"inputs": inputs, "targets": targets})
    return splits


def _value_counts(array: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distinct values, ascending, and their counts, from which all sums over millions of pixels are made."""
    if array.dtype == np.uint8:
        parts = (array[start : start + CHUNK].ravel() for start in range(0, len(array), CHUNK))
        counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
        levels = np.flatnonzero(counts)
        return (levels.astype(np.float32) / scale(array)).astype(np.float64), counts[levels]
    values, counts = np.unique(array, return_counts=True)
    return values.astype(np.float64), counts
