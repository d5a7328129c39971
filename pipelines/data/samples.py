"""Samples of an imported artifact: the user's, or ones drawn from its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import Model
from models.data import Rows
from models.signature import STRING, Signature, Tensor, batch_size
from pipelines.data import npz
from pipelines.data.source import DataError
from serving import golden

FILE = "samples.npz"
DRAWN = 64
"""Rows that are drawn if there are no samples, and the minimum of rows."""
FREE = 4
"""The first free size of drawn inputs; the others differ from it and from each other."""


def given(model: Model) -> bool:
    """Return True if the user has given samples."""
    return (model.folder / FILE).exists()


def load(model: Model) -> Rows:
    """Return rows without targets. Raises `DataError`."""
    signature = model.spec.signature
    inputs = read(model.folder / FILE, signature) if given(model) else draw(signature)
    count = max(DRAWN, batch_size(inputs))
    # At least as many as the largest request has: the first ones repeat.
    inputs = {name: np.resize(array, (count, *array.shape[1:])) for name, array in inputs.items()}
    return Rows(inputs, np.zeros(count, np.float32))


def read(path: Path, signature: Signature) -> dict[str, NDArray[Any]]:
    """Read an array of rows for each input. Raises `DataError` with what was expected and what came."""
    arrays = npz.read(path, "an array of rows for each input")
    names = [tensor.name for tensor in signature.inputs]
    if sorted(arrays) != sorted(names):
        raise DataError(
            f"{path}: expected the inputs {', '.join(names)}, it has {', '.join(sorted(arrays)) or 'none'}"
        )
    for tensor in signature.inputs:
        array = arrays[tensor.name]
        if not signature.batched and tensor.admits(array.shape):
            arrays[tensor.name] = array = array[np.newaxis]
        dtype = STRING if array.dtype.kind in "OSU" else array.dtype.name
        if array.ndim == 0 or not tensor.admits(array.shape[1:]) or dtype != tensor.dtype:
            raise DataError(
                f"{path}: {tensor.name}: expected {tensor.dtype} rows of {list(tensor.row)}, "
                f"they are {dtype} {list(array.shape)}"
            )
        if dtype == STRING:
            arrays[tensor.name] = np.array(golden.texts(array), object).reshape(array.shape)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not min(counts.values()):
        raise DataError(f"{path}: expected as many rows of each input, and one at least; it has {counts}")
    return {name: arrays[name] for name in names}


def draw(signature: Signature) -> dict[str, NDArray[Any]]:
    """Draw floats from 0 to 1, and integers that are 0 or 1: they may be indices, lengths or masks."""
    generator = np.random.default_rng(1)
    names = dict.fromkeys(size for t in signature.inputs for size in t.inner if isinstance(size, str))
    sizes = {name: FREE + place for place, name in enumerate(names)}

    def rows(tensor: Tensor) -> NDArray[Any]:
        shape = (DRAWN, *(sizes[size] if isinstance(size, str) else size for size in tensor.inner))
        if tensor.dtype == STRING:
            texts = [b"sample %d" % place for place in range(int(np.prod(shape)))]
            return np.array(texts, object).reshape(shape)
        if tensor.dtype.startswith("float"):
            return generator.random(shape).astype(tensor.dtype)
        return generator.integers(0, 2, shape).astype(tensor.dtype)

    return {tensor.name: rows(tensor) for tensor in signature.inputs}
