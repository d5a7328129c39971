"""What a split of the data is like: the figures that TensorFlow Data Validation has, and those that pictures need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data import Dataset, Pictures
from pipelines.validation.labels import CHUNK, agreement, class_means, scale

BUCKETS = 10
"""Buckets of equal width over 0..1: as many as TFDV's standard histogram has."""


@dataclass(frozen=True)
class Statistics:
    """One split, in JSON's types.

    Values are those that the endpoints take: uint8 pictures are divided by 255. `minimum` to `zeros` are over the
    finite ones. Lists by class have the order of the labels.
    """

    pictures: int
    shape: list[int]
    """Of one picture, with its channel: [H, W, 1]."""
    dtype: str
    values: int
    minimum: float
    maximum: float
    mean: float
    std: float
    zeros: int
    non_finite: int
    histogram: list[int]
    """Finite values by bucket; what lies outside 0..1 is in the first or the last one."""
    classes: list[int]
    """Pictures by class."""
    unknown_labels: int
    constant: int
    """Pictures all of whose values are the same."""
    duplicates: int
    """Pictures that are, byte for byte, another one of this split."""
    class_means: list[list[float]]
    """The mean picture of each class, flat; zeros where a class is missing."""
    agreement: list[float]
    """Share of each class's pictures that are nearest to its mean picture in the training split."""
    digest: str
    """sha256 of pictures and labels."""


def of_dataset(dataset: Dataset, classes: int) -> dict[str, Statistics]:
    """The statistics of every split by its name."""
    means = class_means(dataset.train.images, dataset.train.labels, classes)
    return {name: of(part.images, part.labels, means) for name, part in splits(dataset).items()}


def splits(dataset: Dataset) -> dict[str, Pictures]:
    """The pictures of every split by its name."""
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


def of(images: NDArray[Any], labels: NDArray[Any], means: NDArray[np.float32]) -> Statistics:
    """The statistics of pictures [N, H, W] (uint8, or floats) and labels [N].

    `means` are the training split's mean pictures, [classes, H * W].
    """
    flat = images.reshape(len(images), -1)
    values, counts = _value_counts(images)
    finite = np.isfinite(values)
    non_finite = int(counts[~finite].sum())
    values, counts = values[finite], counts[finite]
    total = max(1, int(counts.sum()))
    mean = float(values @ counts) / total
    known = (labels >= 0) & (labels < len(means))
    histogram, _ = np.histogram(np.clip(values, 0, 1), BUCKETS, (0, 1), weights=counts)
    return Statistics(
        pictures=len(images),
        shape=[*images.shape[1:], 1],
        dtype=str(images.dtype),
        values=flat.size,
        minimum=float(values.min()) if len(values) else 0.0,
        maximum=float(values.max()) if len(values) else 0.0,
        mean=mean,
        std=float(np.sqrt((values - mean) ** 2 @ counts / total)),
        zeros=int(counts[values == 0].sum()),
        non_finite=non_finite,
        histogram=[int(count) for count in histogram],
        classes=np.bincount(labels[known].astype(np.int64), minlength=len(means)).tolist(),
        unknown_labels=int(np.sum(~known)),
        constant=int(np.sum(flat.min(axis=1) == flat.max(axis=1))) if flat.size else 0,
        duplicates=len(images) - len(distinct(images)),
        class_means=np.round(class_means(images, labels, len(means)).astype(float), 4).tolist(),
        agreement=agreement(images, labels, means),
        digest=_digest(images, labels),
    )


def distinct(images: NDArray[Any]) -> set[bytes]:
    """The pictures' contents."""
    return {image.tobytes() for image in images}


def to_json(statistics: Mapping[str, Statistics]) -> str:
    """The statistics of every split as text."""
    return json.dumps({name: asdict(own) for name, own in statistics.items()}) + "\n"


def from_json(text: str) -> dict[str, Statistics]:
    """Read what `to_json` wrote."""
    return {name: Statistics(**fields) for name, fields in json.loads(text).items()}


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _value_counts(images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Which values there are, ascending, and how often: all the sums over millions of pixels come from these."""
    if images.dtype == np.uint8:
        parts = (images[start : start + CHUNK].ravel() for start in range(0, len(images), CHUNK))
        counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
        levels = np.flatnonzero(counts)
        return (levels.astype(np.float32) / scale(images)).astype(np.float64), counts[levels]
    values, counts = np.unique(images, return_counts=True)
    return values.astype(np.float64), counts
