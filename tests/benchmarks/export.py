"""The project's own network with untrained weights, as a model repository: cost does not depend on accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.base import load
from pipelines import exporting
from serving.repository import version_dir
from tests.weights import unsettled


def repository(root: Path, model: str, targets: Sequence[str]) -> None:
    """Write version 1 of a model for each of `targets` below `root`."""
    definition = load(model)
    weights = unsettled(definition)
    generator = np.random.default_rng(0)
    calibration = {t.name: generator.random((8, *t.row)).astype(t.dtype) for t in definition.spec.inputs}
    for target in targets:
        folder = version_dir(root, target, model, 1)
        folder.mkdir(parents=True)
        exporting.load(target).write(definition, weights, folder, calibration)
