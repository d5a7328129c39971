"""Do labels say what the pictures show? The mean picture of each class as the yardstick."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1_000
"""Pictures worked on at once: what is made of them stays in the processor's cache."""


def class_means(images: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """The mean picture of each class, float32 [classes, H * W * C], values 0..1; zeros where a class is missing."""
    flat = _flat(images)
    means = np.zeros((classes, flat.shape[1]), np.float32)
    for label in range(classes):
        own = flat[labels == label]
        if len(own):
            means[label] = own.mean(axis=0) / scale(images)
    return means


def agreement(images: NDArray[Any], labels: NDArray[Any], means: NDArray[np.float32]) -> list[float]:
    """Share of each class's pictures [N, H, W, C] whose nearest mean picture is that of their class; 0 where none is.

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
    """[N, H * W * C], with 0 for what is no number."""
    flat = images.reshape(len(images), -1)
    return flat if flat.dtype == np.uint8 else np.nan_to_num(flat, nan=0, posinf=0, neginf=0)


def scale(images: NDArray[Any]) -> np.float32:
    """What divides pictures of this dtype into 0..1."""
    return np.float32(255 if images.dtype == np.uint8 else 1)
