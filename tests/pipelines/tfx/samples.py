"""Runs of the DAG on the sample pictures: enough to see every component work, too few to learn much."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from models.base import Model, Profile
from pipelines import fingerprint
from pipelines.data import Dataset, Pictures
from pipelines.sources import Sources
from serving.settings import Settings

PROFILE = Profile(epochs=1, peak_learning_rate=4e-3, minimum_accuracy=0.05, batch_size=32)
SPLITS = {"train": range(0, 31), "validation": range(31, 41), "test": range(41, 51)}
"""Which pictures of each class, of the 51 that the sample has at least."""


def dataset(sample: Pictures) -> Dataset:
    """310 training, 100 validation and 100 test pictures, all classes alike."""
    generator = np.random.default_rng(0)
    rank = np.zeros(len(sample), int)
    for label in range(10):
        own = sample.labels == label
        rank[own] = generator.permutation(own.sum())
    parts: dict[str, Pictures] = {}
    for name, ranks in SPLITS.items():
        chosen = np.isin(rank, ranks)
        parts[name] = Pictures(sample.images[chosen], sample.labels[chosen])
    digest = hashlib.sha256(b"".join(part.images.tobytes() for part in parts.values())).hexdigest()
    return Dataset(parts["train"], parts["validation"], parts["test"], digest)


def sources(artifacts: Path, model: Model, dataset: Dataset) -> Sources:
    """What a run is made from, with a profile that takes seconds."""
    settings = dataclasses.replace(Settings(), artifacts=artifacts)
    spec = dataclasses.replace(model.spec, profiles={"quick": PROFILE})
    training = fingerprint.training(model, "quick", settings.seed, dataset.digest)
    return Sources(settings, dataclasses.replace(model, spec=spec), dataset, training, training)
