"""What an artifact must be beyond its answers to test rows: right for any number of rows, for inputs that no test
picture is like, and for what it says of itself."""

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
from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE

SIZES = (1, 3, 64)
"""Rows a run."""
NOISE = 1e3
"""Standard deviation of the large noise: a thousand times what a picture has."""

Answer = Callable[[Sequence[Arrays]], Sequence[Arrays]]


def batches(inputs: Arrays) -> list[Arrays]:
    """Runs of 1, 3 and 64 of the rows, and then of zeros, ones and large noise, three rows each.

    Integers, which may be indices, stay among those that the rows have.
    """
    ends = np.cumsum(SIZES)
    own: list[Arrays] = [
        {name: np.resize(array, (int(end), *array.shape[1:]))[-size:] for name, array in inputs.items()}
        for end, size in zip(ends, SIZES, strict=True)
    ]
    generator = np.random.default_rng(3)

    def noise(array: NDArray[Any]) -> NDArray[Any]:
        shape = (3, *array.shape[1:])
        if array.dtype.kind == "f":
            return generator.normal(scale=NOISE, size=shape).astype(array.dtype)
        return generator.integers(array.min(), array.max(), shape, array.dtype, endpoint=True)

    def constant(value: int) -> Arrays:
        return {
            n: np.full(
                (3, *a.shape[1:]), np.clip(value, a.min(), a.max()) if a.dtype.kind != "f" else value, a.dtype
            )
            for n, a in inputs.items()
        }

    return [*own, constant(0), constant(1), {name: noise(array) for name, array in inputs.items()}]


def difference(answer: Answer, expected: Sequence[Arrays], runs: Sequence[Arrays]) -> float:
    """The largest difference from `expected`, run by run; relative to a row's largest output where that is above 1.

    Infinite where a run answers with another number of rows, or with NaN.
    """
    worst = 0.0
    for right, outputs in zip(expected, answer(runs), strict=True):
        for name, wanted in right.items():
            if outputs[name].shape != wanted.shape:
                return float("inf")
            flat = wanted.reshape(len(wanted), -1).astype(np.float64)
            scale = np.maximum(1, np.abs(flat).max(axis=1, keepdims=True))
            apart = np.abs(outputs[name].reshape(flat.shape).astype(np.float64) - flat) / scale
            worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max()))
    return worst


@contextmanager
def alone(folder: Path, file: str, whole: bool) -> Iterator[Path]:
    """The artifact's path in an empty folder: only `file` goes along, or the `whole` folder, as it is published."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "artifact"
        if whole:
            shutil.copytree(folder, empty)
        else:
            empty.mkdir()
            shutil.copy(folder / file, empty / file)
        yield empty / file


def untruths(backend: str, folder: Path, file: str, signature: Signature) -> list[str]:
    """What an artifact says of its inputs and outputs that the model's signature does not: names, dtypes, free sizes.

    `folder` holds the artifact and nothing else; `backend` is the one of our server that opens it.
    """
    servable = loader(backend)(folder, file, 1)
    try:
        declared = servable.signatures[DEFAULT_SIGNATURE]
    finally:
        servable.close()
    pairs = {
        "inputs": (declared.inputs, signature.inputs),
        "outputs": (declared.outputs, signature.outputs),
    }
    found = []
    for kind, (specs, tensors) in pairs.items():
        told = {spec.name: (spec.dtype, spec.shape) for spec in specs}
        shapes = {t.name: tuple(-1 if isinstance(size, str) else size for size in t.shape) for t in tensors}
        expected = {tensor.name: (tensor.dtype, shapes[tensor.name]) for tensor in tensors}
        if told != expected:
            found.append(f"{kind} {told}, expected {expected}")
    return found
