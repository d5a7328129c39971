"""The statistics of a split: those of TensorFlow Data Validation, and further ones for pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    """The values of one input, or of the targets of a regression, in JSON's types.

    They are those that the endpoints take: uint8 pictures are divided by 255. `minimum` to `zeros` are over the
    finite ones.
    """

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


@dataclass(frozen=True)
class Statistics:
    """One split. Lists by class have the order of the labels, and are empty where there are no classes."""

    rows: int
    inputs: dict[str, Values]
    targets: Values | None
    """The targets of a regression."""
    classes: list[int]
    """The number of rows of each class."""
    unknown_labels: int
    constant: int
    """Pictures of one colour."""
    duplicates: int
    """Rows whose inputs equal another row's in this split."""
    class_means: list[list[float]]
    """The mean picture of each class, flat; zeros if a class is missing."""
    agreement: list[float]
    """The share of each class's pictures that are nearest to its mean picture in the training split."""


def of_dataset(dataset: Dataset, spec: ModelSpec, schema: Schema) -> dict[str, Statistics]:
    """Return the statistics of every split by name."""
    means = mean_pictures(dataset.train, spec)
    return {name: of(part, spec, schema, means) for name, part in dataset.splits.items()}


def mean_pictures(rows: Rows, spec: ModelSpec) -> NDArray[np.float32] | None:
    """Return the mean picture of each class, [classes, H * W * C]; None if there are no pictures or no classes."""
    images = pictures(rows, spec)
    if images is None or not isinstance(spec.task, Classification):
        return None
    return class_means(images, rows.targets, len(spec.task.classes))


def pictures(rows: Rows, spec: ModelSpec) -> NDArray[Any] | None:
    """Return the only input, if it is pictures; otherwise None."""
    picture = spec.signature.picture
    return None if picture is None else rows.inputs[picture.name]


def of(rows: Rows, spec: ModelSpec, schema: Schema, means: NDArray[np.float32] | None) -> Statistics:
    """Return the statistics of some rows. `means` are the training split's mean pictures."""
    images = pictures(rows, spec)
    classes, unknown, targets = [], 0, None
    if isinstance(spec.task, Classification):
        count = len(spec.task.classes)
        known = (rows.targets >= 0) & (rows.targets < count)
        classes = np.bincount(rows.targets[known].astype(np.int64), minlength=count).tolist()
        unknown = int(np.sum(~known))
    else:
        targets = values_of(rows.targets, schema.label)
    constant, own_means, agreeing = 0, np.array([]), list[float]()
    if images is not None and images.size:
        flat = images.reshape(len(images), -1)
        constant = int(np.sum(flat.min(axis=1) == flat.max(axis=1)))
    if images is not None and means is not None:
        own_means = class_means(images, rows.targets, len(means)).astype(float)
        agreeing = agreement(images, rows.targets, means)
    return Statistics(
        rows=len(rows),
        inputs={name: values_of(array, schema.inputs[name]) for name, array in rows.inputs.items()},
        targets=targets,
        classes=classes,
        unknown_labels=unknown,
        constant=constant,
        duplicates=len(rows) - len(distinct(rows)),
        class_means=np.round(own_means, 4).tolist(),
        agreement=agreeing,
    )


def values_of(array: NDArray[Any], feature: Feature) -> Values:
    """Return the statistics of an array [N, ...]."""
    values, counts = _value_counts(array)
    finite = np.isfinite(values)
    values, counts = values[finite], counts[finite]
    total = max(1, int(counts.sum()))
    mean = float(values @ counts) / total
    histogram: list[int] = []
    if feature.range is not None:
        found, _ = np.histogram(np.clip(values, *feature.range), BUCKETS, feature.range, weights=counts)
        histogram = [int(count) for count in found]
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
    for label in range(classes):
        own = flat[labels == label]
        if len(own):
            means[label] = own.mean(axis=0) / scale(images)
    return means


def agreement(images: NDArray[Any], labels: NDArray[Any], means: NDArray[np.float32]) -> list[float]:
    """Return the share of each class's pictures [N, H, W, C] that are nearest to its mean picture; 0 if it has none.

    Labels that are swapped or drawn at random lower it long before they lower a trained network's accuracy.
    """
    flat = _flat(images)
    nearest = np.full(len(flat), -1)
    if flat.shape[1] == means.shape[1]:
        half_norms = np.sum(means**2, axis=1) / 2
        for start in range(0, len(flat), CHUNK):
            part = flat[start : start + CHUNK].astype(np.float32) / scale(images)
            nearest[start : start + CHUNK] = np.argmax(part @ means.T - half_norms, axis=1)
    right = nearest == labels
    return [
        float(right[labels == label].mean()) if (labels == label).any() else 0.0
        for label in range(len(means))
    ]


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
    """Read the JSON of `to_json`. Raises `TypeError` or `KeyError` for an older form."""
    found = {}
    for name, fields in json.loads(text).items():
        inputs = {key: Values(**own) for key, own in fields["inputs"].items()}
        targets = None if fields["targets"] is None else Values(**fields["targets"])
        found[name] = Statistics(**fields | {"inputs": inputs, "targets": targets})
    return found


def _value_counts(images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distinct values, ascending, and their counts, from which all sums over millions of pixels are made."""
    if images.dtype == np.uint8:
        parts = (images[start : start + CHUNK].ravel() for start in range(0, len(images), CHUNK))
        counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
        levels = np.flatnonzero(counts)
        return (levels.astype(np.float32) / scale(images)).astype(np.float64), counts[levels]
    values, counts = np.unique(images, return_counts=True)
    return values.astype(np.float64), counts
