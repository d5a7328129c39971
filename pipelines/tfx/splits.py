"""The rows on their way to TFX's side: one .npz file of all splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.data import Dataset, Rows
from pipelines import data

SPLITS = ("train", "validation", "test")
SAMPLE = "sample"
"""A few test rows that BulkInferrer is run on."""
SAMPLE_ROWS = 64
TARGET = "target"


def of_dataset(dataset: Dataset) -> dict[str, Rows]:
    """Every split, by its name."""
    return {**dataset.splits, SAMPLE: dataset.test.take(slice(SAMPLE_ROWS))}


def digest(splits: Mapping[str, Rows]) -> str:
    """One digest of all rows, and of which split they are in."""
    return data.digest(*splits.values())


def write(splits: Mapping[str, Rows], path: Path) -> None:
    """Write the splits to a file that appears complete."""
    arrays = {f"{name}/{TARGET}": part.targets for name, part in splits.items()}
    arrays |= {
        f"{name}/input/{key}": array for name, part in splits.items() for key, array in part.inputs.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".incoming-{path.name}")
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


def read(path: Path) -> dict[str, Rows]:
    """The splits that `write` wrote."""
    result = {}
    with np.load(path) as file:
        for name in (*SPLITS, SAMPLE):
            start = f"{name}/input/"
            inputs = {key.removeprefix(start): file[key] for key in file.files if key.startswith(start)}
            result[name] = Rows(inputs, file[f"{name}/{TARGET}"])
    return result
