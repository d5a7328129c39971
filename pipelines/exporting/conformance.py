"""Checks of an artifact beyond the test rows: any number of rows, extreme inputs, the declared signature, and that a
row's answer is independent of the other rows in its run: only then may requests share runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, Signature, batch_size, joined, rows
from serving import golden
from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE

SIZES = (1, 3, 64)
"""Rows of each run."""
NOISE = 1e3
"""Standard deviation of the large noise: a thousand times what a picture has."""

COMPANY = 8
"""Rows whose answers alone and in company are compared."""
COMPANY_SIZES = (7, 64)
"""Rows of these runs, beside one and two: a number that no kernel is made for, and the servers' limit."""
LARGE = (1e6, -1e6, float(np.finfo(np.float32).max))

Answer = Callable[[Sequence[Arrays]], Sequence[Arrays]]


def batches(inputs: Arrays, batched: bool = True) -> list[Arrays]:
    """Return runs of 1, 3 and 64 of the rows, and of zeros, ones and large noise, three rows each; one row each if the
    model is not batched."""
    runs: list[Arrays] = [
        {name: np.resize(array, (end, *array.shape[1:]))[-size:] for name, array in inputs.items()}
        for end, size in zip(np.cumsum(SIZES), SIZES, strict=True)
    ]
    runs += [{name: constant(array, value, 3) for name, array in inputs.items()} for value in (0, 1)]
    generator = np.random.default_rng(3)
    runs.append({name: noise(array, generator, NOISE, 3) for name, array in inputs.items()})
    return runs if batched else [{n: np.asarray(a[0], a.dtype) for n, a in run.items()} for run in runs[1:]]


def constant(like: NDArray[Any], value: float, count: int) -> NDArray[Any]:
    """Return rows of one value, cut to the range of the dtype, or for integers, which may be indices, to that of the
    rows `like`. Texts are those of `like`."""
    shape = (count, *like.shape[1:])
    if like.dtype.kind not in "fiu":
        return np.resize(like[int(value != 0) :], shape)
    most = float(np.finfo(like.dtype).max) if like.dtype.kind == "f" else int(like.max())
    least = -most if like.dtype.kind == "f" else int(like.min())
    return np.full(shape, max(least, min(value, most)), like.dtype)


def noise(like: NDArray[Any], generator: np.random.Generator, scale: float, count: int) -> NDArray[Any]:
    """Return rows of normally distributed floats, or of integers and texts from the rows `like`."""
    shape = (count, *like.shape[1:])
    if like.dtype.kind == "f":
        return generator.normal(scale=scale, size=shape).astype(like.dtype)
    if like.dtype.kind not in "iu":
        return np.resize(like[::-1], shape)
    return generator.integers(like.min(), like.max(), shape, like.dtype, endpoint=True)


def difference(answers: Sequence[Arrays], expected: Sequence[Arrays], batched: bool = True) -> float:
    """Return the largest difference of the answers to some runs; relative to a row's largest output if that is
    above 1. Infinite where a run answers with another number of rows, or with NaN where `expected` has none."""
    worst = 0.0
    for right, outputs in zip(expected, answers, strict=True):
        for name, wanted in right.items():
            if outputs[name].shape != wanted.shape:
                return float("inf")
            # A call of a model that is not batched is one row.
            pairs = zip(outputs[name], wanted, strict=True) if batched else [(outputs[name], wanted)]
            worst = max(worst, *(_apart(np.asarray(row), np.asarray(reference)) for row, reference in pairs))
    return worst


def _apart(row: NDArray[Any], reference: NDArray[Any]) -> float:
    return golden.difference(row, reference) / golden.largest(reference)


@contextmanager
def alone(folder: Path, file: str, others: Sequence[str]) -> Iterator[Path]:
    """Copy an artifact's folder without its `others`, and yield the path of `file` there."""
    with tempfile.TemporaryDirectory() as name:
        copy = shutil.copytree(folder, Path(name) / "artifact", ignore=shutil.ignore_patterns(*others))
        yield Path(copy) / file


def untruths(backend: str, folder: Path, file: str, signature: Signature) -> list[str]:
    """Return the names, dtypes and free sizes that an artifact declares differently from the model's signature.
    `folder` holds the artifact and nothing else; `backend` is the one of our server that opens it."""
    servable = loader(backend)(folder, file, 1)
    try:
        declared = servable.signatures[DEFAULT_SIGNATURE]
    finally:
        servable.close()
    faults = []
    for kind in ("inputs", "outputs"):
        specs = {spec.name: (spec.dtype, spec.shape) for spec in getattr(declared, kind)}
        expected = {}
        for tensor in getattr(signature, kind):
            shape = tuple(-1 if isinstance(size, str) else size for size in tensor.shape)
            # A file may not declare the shape of a scalar.
            undeclared = specs.get(tensor.name, ("", ()))[1] is None
            expected[tensor.name] = (tensor.dtype, None if undeclared else shape)
        if specs != expected:
            faults.append(f"{kind} {specs}, expected {expected}")
    return faults


def company_difference(answer: Answer, inputs: Arrays) -> float:
    """Return the largest difference between a row's answer alone and in company, in another order and place.

    `answer` gives each batch a run of its own. The rows are the first 8 of `inputs` and guests that would show in
    their neighbours through a shared scale, mean or maximum. A difference counts relative to the row's largest
    output where that is above 1. Infinite where a run answers with another number of rows.
    """
    own = rows(inputs, slice(COMPANY))
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
    for size in COMPANY_SIZES:
        # The second has no guests.
        pairs += [np.resize(generator.permutation(count), size) for count in (rows, samples)]
    return runs + [order for run in pairs for order in (run, run[::-1])]


def _distance(found: Arrays, alone: Arrays) -> float:
    """Return the difference of two answers; 0 if the answer alone is not finite, as with very large values."""
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in alone.values()):
        return 0.0
    scale = max(golden.largest(np.asarray(array)) for array in alone.values())
    return max(golden.difference(np.asarray(found[name]), np.asarray(alone[name])) for name in alone) / scale
