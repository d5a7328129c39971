"""The one plan of batches and learning rates that both frameworks follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.base import Profile
from pipelines.data import Pictures, to_floats

WARMUP_SHARE = 0.2
FINAL_SHARE = 0.01
"""The schedule starts and ends at this share of the peak."""

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class BatchPlan:
    """Which pictures, flipped and shifted or not, make up each batch of each epoch: a pure function of the seed.

    A batch is `images` float32 [B, H, W, 1], values 0..1, and `labels` int64 [B]. The last pictures of an
    epoch that fill no batch, or are more than the profile takes, are left out, as in the order of that epoch.
    """

    pictures: Pictures
    profile: Profile
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        pictures = len(self.pictures)
        return min(pictures, self.profile.epoch_pictures or pictures) // self.profile.batch_size

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.profile.epochs

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        generator = np.random.default_rng([self.seed, number])
        order = generator.permutation(len(self.pictures))
        flipped = generator.random(len(self.pictures)) < 0.5
        shift = self.profile.shift
        offsets = generator.integers(0, 2 * shift + 1, (len(self.pictures), 2))
        size = self.profile.batch_size
        for step in range(self.steps_per_epoch):
            chosen = order[step * size : (step + 1) * size]
            images = self.pictures.images[chosen]
            images = np.where(flipped[chosen, None, None], images[:, :, ::-1], images)
            if shift:
                images = _shifted(images, offsets[chosen], shift)
            yield to_floats(images), self.pictures.labels[chosen].astype(np.int64)

    def learning_rates(self) -> NDArray[np.float32]:
        """The learning rate of every step: a linear rise, then half a cosine (one cycle, Smith 2018)."""
        warmup = max(1, int(self.steps * WARMUP_SHARE))
        step = np.arange(self.steps)
        rise = FINAL_SHARE + (1 - FINAL_SHARE) * step / warmup
        fall = (step - warmup) / max(1, self.steps - warmup)
        cosine = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + np.cos(np.pi * fall)) / 2
        return (self.profile.peak_learning_rate * np.where(step < warmup, rise, cosine)).astype(np.float32)


def _shifted(images: NDArray[np.uint8], offsets: NDArray[np.int64], shift: int) -> NDArray[np.uint8]:
    """Move each of [B, H, W] down and right by its `offsets` [B, 2] less `shift`; what comes in is black."""
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))
    moved: NDArray[np.uint8] = windows[np.arange(len(images)), *(2 * shift - offsets).T]
    return moved
