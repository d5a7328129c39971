"""Runs of the DAG on the sample pictures: enough to see every component work, too few to learn much."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.base import Model, Profile
from models.data import Dataset, Rows
from pipelines import data
from pipelines.records import fingerprint
from pipelines.stages import Recipe
from serving.settings import Settings
from tests.pipelines.test_refusals import (
    Break,
    animals_everywhere,
    black_pictures,
    leaked_pictures,
    missing_class,
    swapped_in_training,
)

PROFILE = Profile(epochs=2, peak_learning_rate=4e-3, minimum_score=0.05, batch_size=32)
SPLITS = {"train": range(0, 31), "validation": range(31, 41), "test": range(41, 51)}
"""The pictures of each class in each split, of the 51 that the sample has at least."""

HARMS = {
    "corrupt": (black_pictures, "train: pictures of one colour 1 (limit <= 0)"),
    "swapped": (swapped_in_training, "test: labels unlike train's, worst class "),
    "missing": (missing_class, "train: classes without a row 1 (limit <= 0)"),
    "drifted": (animals_everywhere, "train: drift from version 1: image, Jensen-Shannon "),
    "leaked": (leaked_pictures, "test rows that are training rows too 3 (limit <= 0)"),
}
"""A change to the pictures, and the check that fails."""


class Script:
    """TFX's side, played by a line of shell: `$2` is the request, `$3` the answer."""

    name, server_image = "script", ""

    def __init__(self, line: str) -> None:
        self.line = line

    def prepare(self, *_: object) -> None:
        """Nothing to install."""

    @contextlib.contextmanager
    def command(self, *_: object) -> Iterator[list[str]]:
        yield ["sh", "-c", self.line, "tfx"]


def harmed(dataset: Dataset, harm: Break) -> Dataset:
    """The training and the test pictures as a harm leaves them."""
    train, test = harm(dataset.train, dataset.test)
    return Dataset(train, dataset.validation, test, harm.__name__)


def dataset(sample: Rows) -> Dataset:
    """310 training, 100 validation and 100 test pictures, all classes alike."""
    generator = np.random.default_rng(0)
    rank = np.zeros(len(sample), int)
    for label in range(10):
        own = sample.targets == label
        rank[own] = generator.permutation(own.sum())
    parts: dict[str, Rows] = {}
    for name, ranks in SPLITS.items():
        chosen = np.isin(rank, ranks)
        parts[name] = sample.take(chosen)
    return Dataset(parts["train"], parts["validation"], parts["test"], data.digest(*parts.values()))


def sources(artifacts: Path, model: Model, dataset: Dataset) -> Recipe:
    """Return a recipe with a profile that takes seconds."""
    settings = dataclasses.replace(Settings(), artifacts=artifacts)
    spec = dataclasses.replace(model.spec, profiles={"quick": PROFILE})
    training = fingerprint.training(model, settings, dataset.digest)
    return Recipe(settings, dataclasses.replace(model, spec=spec), dataset, training, training)
