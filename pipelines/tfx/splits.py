"""The pictures on their way to TFX's side: one .npz file of all splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.data import Dataset, Pictures

SPLITS = ("train", "validation", "test")
SAMPLE = "sample"
"""A few test pictures that BulkInferrer is run on."""
SAMPLE_PICTURES = 64


def of_dataset(dataset: Dataset) -> dict[str, Pictures]:
    """Every split, by its name."""
    test = dataset.test
    sample = Pictures(test.images[:SAMPLE_PICTURES], test.labels[:SAMPLE_PICTURES])
    return {"train": dataset.train, "validation": dataset.validation, "test": test, SAMPLE: sample}


def digest(splits: Mapping[str, Pictures]) -> str:
    """One digest of all pictures and labels, and of which split they are in."""
    whole = hashlib.sha256()
    for name, part in splits.items():
        whole.update(f"{name}{part.images.shape}{part.images.dtype}".encode())
        whole.update(np.ascontiguousarray(part.images).data)
        whole.update(np.ascontiguousarray(part.labels).data)
    return whole.hexdigest()


def write(splits: Mapping[str, Pictures], path: Path) -> None:
    """Write the splits to a file that appears complete."""
    arrays = {f"{name}_images": part.images for name, part in splits.items()}
    arrays |= {f"{name}_labels": part.labels for name, part in splits.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".incoming-{path.name}")
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


def read(path: Path) -> dict[str, Pictures]:
    """The splits that `write` wrote."""
    with np.load(path) as file:
        return {name: Pictures(file[f"{name}_images"], file[f"{name}_labels"]) for name in (*SPLITS, SAMPLE)}
