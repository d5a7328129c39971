"""The check that a row's answer is independent of the rows in its run; only then may requests share runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, batch_size, joined, rows
from pipelines.exporting.conformance import constant, noise
from serving import golden

ROWS = 8
LARGE = (1e6, -1e6, float(np.finfo(np.float32).max))
SIZES = (7, 64)
"""Rows of a run, beside one and two: a number that no kernel is made for, and the servers' limit."""


def difference(answer: Callable[[Sequence[Arrays]], Sequence[Arrays]], inputs: Arrays) -> float:
    """Return the largest difference between a row's answer alone and in company, in another order and place.

    `answer` gives each batch a run of its own. The rows are the first 8 of `inputs` and guests that would show in
    their neighbours through a shared scale, mean or maximum. A difference counts relative to the row's largest
    output where that is above 1. Infinite where a run answers with another number of rows.
    """
    own = rows(inputs, slice(ROWS))
    everything = joined([own, guests(inputs)])
    count = batch_size(everything)
    runs = orders(count, batch_size(own))
    answers = answer([rows(everything, run) for run in runs])
    if any(len(array) != len(run) for run, own in zip(runs, answers, strict=True) for array in own.values()):
        return float("inf")
    alone = [rows(answered, 0) for answered in answers[:count]]
    return max(
        _distance(rows(answered, place), alone[row])
        for run, answered in zip(runs[count:], answers[count:], strict=True)
        for place, row in enumerate(run)
    )


def guests(inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Return rows of zeros, ones, noise, and the largest values of the dtype: a server accepts them all."""
    generator = np.random.default_rng(1)
    return {
        name: np.concatenate(
            [constant(array, value, 1) for value in (0, 1, *LARGE)] + [noise(array, generator, 1, 3)]
        )
        for name, array in inputs.items()
    }


def orders(rows: int, samples: int) -> list[NDArray[np.intp]]:
    """Return the rows of each run: first every one alone, then sizes 2, 7 and 64 in drawn orders, and reversed."""
    generator = np.random.default_rng(2)
    runs = [np.array([row]) for row in range(rows)]
    pairs = [np.array([row % samples, row]) for row in range(samples, rows)]
    for size in SIZES:
        # The second has no guests.
        pairs += [np.resize(generator.permutation(count), size) for count in (rows, samples)]
    return runs + [order for run in pairs for order in (run, run[::-1])]


def _distance(found: Arrays, alone: Arrays) -> float:
    """Return the difference of two answers; 0 if the answer alone is not finite, as with very large values."""
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in alone.values()):
        return 0.0
    scale = max(golden.largest(np.asarray(array)) for array in alone.values())
    return max(golden.difference(np.asarray(found[name]), np.asarray(alone[name])) for name in alone) / scale
