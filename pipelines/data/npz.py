"""Rows in .npz files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data import NpzFolder, Rows
from pipelines.data.source import DataError

TARGET = "target"


def load(source: NpzFolder, cache: Path) -> tuple[Rows, Rows]:
    """Read training and test rows from `train.npz` and `test.npz`. Raises `DataError`."""
    folder = Path(source.folder) if source.folder else cache
    return _rows(folder / "train.npz"), _rows(folder / "test.npz")


def _rows(path: Path) -> Rows:
    expected = f"an array for each input, and {TARGET!r}, all with the same number of rows"
    arrays = read(path, expected)
    if TARGET not in arrays:
        raise DataError(f"{path}: expected {expected}; it has {', '.join(arrays) or 'nothing'}")
    target = arrays.pop(TARGET)
    return Rows(arrays, target)


def read(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file. Raises `DataError` with what was expected."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected {expected}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz: expected {expected}: {error}") from error
