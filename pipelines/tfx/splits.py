"""The rows for TFX's side: one .npz file of all splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.data import Rows

SPLITS = ("train", "validation", "test")
TARGET = "target"


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
    """Read the splits of `write`."""
    result = {}
    with np.load(path) as file:
        for name in SPLITS:
            start = f"{name}/input/"
            inputs = {key.removeprefix(start): file[key] for key in file.files if key.startswith(start)}
            result[name] = Rows(inputs, file[f"{name}/{TARGET}"])
    return result
