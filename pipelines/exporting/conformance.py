"""Checks of an artifact beyond the test rows: any number of rows, extreme inputs, and the declared signature."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, Signature
from serving import golden
from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE

SIZES = (1, 3, 64)
"""Rows of each run."""
NOISE = 1e3
"""Standard deviation of the large noise: a thousand times what a picture has."""

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


def difference(
    answer: Answer, expected: Sequence[Arrays], runs: Sequence[Arrays], batched: bool = True
) -> float:
    """Return the largest difference from `expected`; relative to a row's largest output if that is above 1.

    Infinite where a run answers with another number of rows, or with NaN where `expected` has none.
    """
    worst = 0.0
    for right, outputs in zip(expected, answer(runs), strict=True):
        for name, wanted in right.items():
            if outputs[name].shape != wanted.shape:
                return float("inf")
            # A call of a model that is not batched is one row.
            pairs = zip(outputs[name], wanted, strict=True) if batched else [(outputs[name], wanted)]
            for found, own in pairs:
                apart = golden.difference(np.asarray(found), np.asarray(own))
                worst = max(worst, apart / golden.largest(np.asarray(own)))
    return worst


@contextmanager
def alone(folder: Path, file: str, whole: bool) -> Iterator[Path]:
    """Copy `file`, or the `whole` folder, into an empty folder, and yield its path there."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "artifact"
        if whole:
            shutil.copytree(folder, empty)
        else:
            empty.mkdir()
            shutil.copy(folder / file, empty / file)
        yield empty / file


def untruths(backend: str, folder: Path, file: str, signature: Signature) -> list[str]:
    """Return the names, dtypes and free sizes that an artifact declares differently from the model's signature.

    `folder` holds the artifact and nothing else; `backend` is the one of our server that opens it.
    """
    servable = loader(backend)(folder, file, 1)
    try:
        declared = servable.signatures[DEFAULT_SIGNATURE]
    finally:
        servable.close()
    found = []
    for kind, specs, tensors in (
        ("inputs", declared.inputs, signature.inputs),
        ("outputs", declared.outputs, signature.outputs),
    ):
        told = {spec.name: (spec.dtype, spec.shape) for spec in specs}
        # A file may not declare the shape of a scalar.
        unknown = {spec.name for spec in specs if spec.shape is None}
        shapes = {t.name: tuple(-1 if isinstance(size, str) else size for size in t.shape) for t in tensors}
        expected = {t.name: (t.dtype, None if t.name in unknown else shapes[t.name]) for t in tensors}
        if told != expected:
            found.append(f"{kind} {told}, expected {expected}")
    return found
