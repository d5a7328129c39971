"""Rows in a folder of .npz files: train.npz and test.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from models.data import NpzFolder, Rows
from pipelines.data.source import DataError

TARGET = "target"


def load(source: NpzFolder, cache: Path) -> tuple[Rows, Rows]:
    """Training and test rows. Raises `DataError`."""
    folder = Path(source.folder) if source.folder else cache
    return _read(folder / "train.npz"), _read(folder / "test.npz")


def _read(path: Path) -> Rows:
    expected = f"expected an array for each input, and {TARGET!r}, all with the same number of rows"
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {expected}") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {expected}: {error}") from error
    target = arrays.pop(TARGET, None)
    lengths = {len(array) for array in arrays.values()}
    if target is None or not arrays or lengths != {len(target)}:
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: {expected}; it has {told or 'no input'}")
    return Rows(arrays, target.astype(np.int64) if target.ndim == 1 else target.astype(np.float32))
