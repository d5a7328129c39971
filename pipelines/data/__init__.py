"""From a model's data source to checked rows in memory, split in training, validation and test."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Model
from models.classification import Classification
from models.data import Dataset, IdxPictures, NpzFolder, OwnData, Rows, Samples
from models.signature import Arrays
from pipelines.data import idx, npz, samples
from pipelines.data.source import DataError, Progress

__all__ = ["DataError", "Progress", "augment", "digest", "load"]

VALIDATION_SHARE = 12
"""One of this number of training rows is held out for validation (5,000 of 60,000); the test rows are for gates and
reports only."""


def load(model: Model, artifacts: Path, seed: int, progress: Progress | None = None) -> Dataset:
    """Load the data of a model, fetching it into `artifacts/data` on the first call. Raises `DataError`."""
    source = model.spec.data
    cache = artifacts / "data" / source.name
    report = progress or (lambda _name, _done, _total: None)
    if isinstance(source, IdxPictures):
        train, test = idx.load(source, cache, model.spec.inputs[0].name, report)
    elif isinstance(source, NpzFolder):
        train, test = npz.load(source, cache)
    elif isinstance(source, Samples):
        rows = samples.load(model)
        return Dataset(rows, rows, rows, digest(rows))
    else:
        train, test = _own(model, cache)
    train, test = (_checked(part, model, name) for part, name in ((train, "training"), (test, "test")))
    if len(train) < VALIDATION_SHARE or not len(test):
        raise DataError(
            f"the data of {source.name}: expected {VALIDATION_SHARE} rows or more to train and some to test, got "
            f"{len(train)} and {len(test)}"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    count = len(train) // VALIDATION_SHARE
    held_out, rest = np.sort(order[:count]), np.sort(order[count:])
    return Dataset(
        train=train.take(rest),
        validation=train.take(held_out),
        test=test,
        digest=idx.digest(source) if isinstance(source, IdxPictures) else digest(train, test),
    )


def _checked(part: Rows, model: Model, name: str) -> Rows:
    """Return the rows, their targets as int64 classes or float32 quantities. Raises `DataError` if they do not fit."""
    task, where = model.spec.task, f"the {name} data of {model.spec.data.name}"
    if not isinstance(part, Rows):
        raise DataError(f"{where}: expected Rows, got {type(part).__name__}")
    inputs, targets = {key: np.asarray(array) for key, array in part.inputs.items()}, np.asarray(part.targets)
    names = sorted(tensor.name for tensor in model.spec.inputs)
    if sorted(inputs) != names or targets.shape[1:] != task.target_row:
        raise DataError(
            f"{where}: expected the inputs {', '.join(names)} and targets {task.target_row}, as spec.py has them; "
            f"it has {', '.join(sorted(inputs))} and targets {targets.shape[1:]}"
        )
    arrays = {**inputs, "targets": targets}
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) > 1 or () in counts or any(array.dtype.kind not in "biuf" for array in arrays.values()):
        shapes = ", ".join(f"{key} {array.dtype} {list(array.shape)}" for key, array in arrays.items())
        raise DataError(f"{where}: expected numbers, and as many rows of each; it has {shapes}")
    with np.errstate(invalid="ignore"):
        kept = targets.astype(np.float32 if task.target_row else np.int64)
    if isinstance(task, Classification) and (kept != targets).any():
        raise DataError(
            f"{where}: expected classes as whole numbers; they are {targets[kept != targets][:5]}"
        )
    return Rows(inputs, kept)


def augment(model: Model, inputs: Arrays, generator: np.random.Generator, options: dict[str, Any]) -> Arrays:
    """Change a training batch's stored inputs by the profile's `augmentation`."""
    source = model.spec.data
    if not options:
        return inputs
    if isinstance(source, IdxPictures):
        return {name: idx.augment(array, generator, **options) for name, array in inputs.items()}
    if isinstance(source, OwnData) and hasattr(own := _own_module(model), "augment"):
        changed: Arrays = own.augment(inputs, generator, **options)
        return changed
    raise DataError(f"the data source of {model.spec.name} knows no augmentation, the profile has {options}")


def digest(*parts: Rows) -> str:
    """Return one digest of the names, types, shapes and contents of all arrays."""
    whole = hashlib.sha256()
    for part in parts:
        for name, array in [*sorted(part.inputs.items()), ("", part.targets)]:
            whole.update(f"{name}{array.dtype}{array.shape}".encode())
            texts = array.dtype.kind == "O"
            whole.update(repr(array.tolist()).encode() if texts else np.ascontiguousarray(array).data)
    return whole.hexdigest()


def _own(model: Model, cache: Path) -> tuple[Rows, Rows]:
    path = model.folder / "data.py"
    if not path.exists():
        raise DataError(
            f"{path} is missing: expected a function load(cache) that gives training and test rows"
        )
    cache.mkdir(parents=True, exist_ok=True)
    try:
        train, test = _own_module(model).load(cache)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} fails to load: {type(error).__name__}: {error}") from error
    return train, test


def _own_module(model: Model) -> Any:  # noqa: ANN401
    return importlib.import_module(f"{model.package}.data")
