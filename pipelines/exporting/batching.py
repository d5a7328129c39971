"""Does a row's answer depend on the rows that share its run? Only where it does not may requests share runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.targets.base import Images, Outputs

PICTURES = 8
LARGE = (1e6, -1e6, float(np.finfo(np.float32).max))
SIZES = (1, 2, 7, 64)
"""Rows a run: alone, as few as there can be, a number that no kernel is made for, and as many as servers let in."""


def difference(answer: Callable[[Sequence[Images]], Sequence[Outputs]], images: Images) -> float:
    """The largest difference between a row's answer alone and in company, in another order and place.

    `answer` gives each batch a run of its own. The rows are the first 8 of `images` and guests that would show in
    their neighbours through a shared scale, mean or maximum. A difference counts relative to the row's largest
    output where that is above 1. Infinite where a run answers with another number of rows.
    """
    rows = np.concatenate([images[:PICTURES], guests(images)])
    runs = orders(len(rows), min(len(images), PICTURES))
    outputs = [
        np.concatenate([one.logits, one.probabilities], axis=1) for one in answer([rows[run] for run in runs])
    ]
    if any(len(output) != len(run) for run, output in zip(runs, outputs, strict=True)):
        return float("inf")
    alone = np.concatenate(outputs[: len(rows)])
    return max(
        _distance(output, alone[run])
        for run, output in zip(runs[len(rows) :], outputs[len(rows) :], strict=True)
    )


def guests(images: Images) -> Images:
    """Zeros, ones, noise, and values as large as float32 can say: a server lets them all in."""
    shape = images.shape[1:]
    flat = [np.full(shape, value, np.float32) for value in (0.0, 1.0, *LARGE)]
    return np.stack([*flat, np.random.default_rng(1).random(shape, np.float32)])


def orders(rows: int, pictures: int) -> list[NDArray[np.intp]]:
    """Which rows each run has: first every one alone, then sizes 2, 7 and 64 in drawn orders, and reversed."""
    generator = np.random.default_rng(2)
    runs = [np.array([row]) for row in range(rows)]
    pairs = [np.array([row % pictures, row]) for row in range(pictures, rows)]
    for size in SIZES[2:]:
        # The second has pictures only, as most runs do.
        pairs += [np.resize(generator.permutation(count), size) for count in (rows, pictures)]
    return runs + [own for run in pairs for own in (run, run[::-1])]


def _distance(found: NDArray[np.float32], alone: NDArray[np.float32]) -> float:
    """Rows whose answer alone is not finite, as very large values may bring about, have none to keep."""
    kept = np.isfinite(alone).all(axis=1)
    expected, got = alone[kept].astype(np.float64), found[kept].astype(np.float64)
    scale = np.maximum(1, np.abs(expected).max(axis=1, initial=0, keepdims=True))
    apart = np.abs(got - expected) / scale
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))
