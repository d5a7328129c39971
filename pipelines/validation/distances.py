"""How far two distributions are from each other, measured as TensorFlow Data Validation does (anomalies/metrics.cc)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def infinity_norm(one: Sequence[int], other: Sequence[int]) -> float:
    """The largest difference of a category's share; 1 where one of them is empty."""
    if not sum(one) or not sum(other):
        return 1.0
    return float(np.max(np.abs(_shares(one) - _shares(other))))


def jensen_shannon_divergence(one: Sequence[int], other: Sequence[int]) -> float:
    """Of two histograms over the same buckets, base 2: 0 where they are alike, 1 where they share no bucket."""
    if not sum(one) or not sum(other):
        return 1.0
    p, q = _shares(one), _shares(other)
    middle = (p + q) / 2
    return min(1.0, (_divergence(p, middle) + _divergence(q, middle)) / 2)


def _shares(counts: Sequence[int]) -> NDArray[np.float64]:
    return np.asarray(counts, np.float64) / sum(counts)


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Kullback and Leibler's, in bits."""
    own = p > 0
    return float(np.sum(p[own] * np.log2(p[own] / q[own])))
