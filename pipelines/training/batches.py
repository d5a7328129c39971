"""The one plan of batches and learning rates that both frameworks follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import Model, Profile
from models.data import Rows
from pipelines import data

WARMUP_SHARE = 0.2
FINAL_SHARE = 0.01
"""The schedule starts and ends at this share of the peak."""

Batch = tuple[dict[str, NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class BatchPlan:
    """The rows of each batch of each epoch, augmented or not: a pure function of the seed.

    A batch is the inputs by name, as the endpoints take them, and the targets. An epoch leaves out its last rows that
    fill no batch, or that exceed the profile's number.
    """

    model: Model
    rows: Rows
    profile: Profile
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        count = len(self.rows)
        return min(count, self.profile.epoch_rows or count) // self.profile.batch_size

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.profile.epochs

    def epoch(self, number: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0; of each the part of one of several `ranks`."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.rows))
        size = self.profile.batch_size
        own = slice(rank * size // ranks, (rank + 1) * size // ranks)
        for step in range(self.steps_per_epoch):
            chosen = self.rows.take(order[step * size : (step + 1) * size])
            generator = np.random.default_rng([self.seed, number, step])
            inputs = data.augment(self.model, chosen.inputs, generator, self.profile.augmentation)
            part = Rows(inputs, chosen.targets).take(own)
            yield part.served(self.model.spec.signature), part.targets

    def learning_rates(self) -> NDArray[np.float32]:
        """Return the learning rate of every step: a linear rise, then half a cosine (one cycle, Smith 2018)."""
        warmup = max(1, int(self.steps * WARMUP_SHARE))
        step = np.arange(self.steps)
        rise = FINAL_SHARE + (1 - FINAL_SHARE) * step / warmup
        fall = (step - warmup) / max(1, self.steps - warmup)
        cosine = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + np.cos(np.pi * fall)) / 2
        return (self.profile.peak_learning_rate * np.where(step < warmup, rise, cosine)).astype(np.float32)
