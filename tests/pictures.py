"""Rows of fashion's kind, for tests that speak of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data import Rows

Images = NDArray[np.float32]
"""Pictures as the endpoints take them: float32 [N, 28, 28, 1], values 0..1."""


def labelled(images: NDArray[Any], labels: NDArray[Any]) -> Rows:
    """Pictures [N, H, W] or [N, H, W, C] with their classes."""
    return Rows({"image": images if images.ndim == 4 else images[..., np.newaxis]}, labels.astype(np.int64))


def as_floats(rows: Rows) -> Images:
    """The pictures as the endpoints take them."""
    image = rows.inputs["image"]
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
