"""Does a row's answer depend on the rows that share its run? Only where it does not may requests share runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, batch_size, joined, rows
from serving import golden

ROWS = 8
LARGE = (1e6, -1e6, float(np.finfo(np.float32).max))
SIZES = (1, 2, 7, 64)
"""Rows a run: alone, as few as there can be, a number that no kernel is made for, and as many as servers let in."""


def difference(answer: Callable[[Sequence[Arrays]], Sequence[Arrays]], inputs: Arrays) -> float:
    """The largest difference between a row's answer alone and in company, in another order and place.

    `answer` gives each batch a run of its own. The rows are the first 8 of `inputs` and guests that would show in
    their neighbours through a shared scale, mean or maximum. A difference counts relative to the row's largest
    output where that is above 1. Infinite where a run answers with another number of rows.
    """
    own = rows(inputs, slice(ROWS))
    everything = joined([own, guests(inputs)])
    count = batch_size(everything)
    runs = orders(count, batch_size(own))
    answers = answer([rows(everything, run) for run in runs])
    outputs = [np.concatenate([_flat(array) for array in answered.values()], axis=1) for answered in answers]
    if any(len(output) != len(run) for run, output in zip(runs, outputs, strict=True)):
        return float("inf")
    alone = np.concatenate(outputs[:count])
    return max(
        _distance(output, alone[run]) for run, output in zip(runs[count:], outputs[count:], strict=True)
    )


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in golden.TEXT:
        # Other texts are other numbers.
        array = np.array([zlib.crc32(text) for text in golden.texts(array)], np.float64).reshape(array.shape)
    return array.reshape(len(array), int(np.prod(array.shape[1:])))


def guests(inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Numbers: zeros, ones, noise, and values as large as float32 can say: a server lets them all in. Integers, which
    may be indices: the least and the largest that there are, and drawn ones between them."""
    generator = np.random.default_rng(1)
    result: dict[str, NDArray[Any]] = {}
    drawn: list[NDArray[Any]]
    for name, array in inputs.items():
        shape = array.shape[1:]
        if array.dtype.kind == "f":
            most = float(np.finfo(array.dtype).max)
            values = np.clip((0.0, 1.0, *LARGE), -most, most)
            drawn = [np.full(shape, value, array.dtype) for value in values]
            drawn.append(generator.random(shape).astype(array.dtype))
        elif array.dtype.kind not in "iu":
            drawn = list(np.resize(array[::-1], (6, *shape)))
        else:
            low, high = array.min(), array.max()
            drawn = [np.full(shape, value, array.dtype) for value in (low, high)]
            drawn += [generator.integers(low, high, shape, array.dtype, endpoint=True) for _ in range(4)]
        result[name] = np.stack(drawn)
    return result


def orders(rows: int, samples: int) -> list[NDArray[np.intp]]:
    """Which rows each run has: first every one alone, then sizes 2, 7 and 64 in drawn orders, and reversed."""
    generator = np.random.default_rng(2)
    runs = [np.array([row]) for row in range(rows)]
    pairs = [np.array([row % samples, row]) for row in range(samples, rows)]
    for size in SIZES[2:]:
        # The second has no guests, as most runs do.
        pairs += [np.resize(generator.permutation(count), size) for count in (rows, samples)]
    return runs + [order for run in pairs for order in (run, run[::-1])]


def _distance(found: NDArray[np.float32], alone: NDArray[np.float32]) -> float:
    """Rows whose answer alone is not finite, as very large values may bring about, have none to keep."""
    kept = np.isfinite(alone).all(axis=1)
    expected, got = alone[kept].astype(np.float64), found[kept].astype(np.float64)
    scale = np.maximum(1, np.abs(expected).max(axis=1, initial=0, keepdims=True))
    apart = np.abs(got - expected) / scale
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))
