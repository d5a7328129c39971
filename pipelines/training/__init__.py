"""Training the same model in both frameworks."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from models.base import Model
from pipelines.data import Pictures
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained

FITS = {"tensorflow": "pipelines.training.keras_fit", "pytorch": "pipelines.training.lightning_fit"}


def train(framework: str, model: Model, plan: BatchPlan, validation: Pictures, folder: Path) -> Trained:
    """Train in one framework, or return what is already trained in `folder / framework`.

    A training that was cut off goes on from its last epoch. TensorBoard logs of both frameworks go to
    `folder / tensorboard`.
    """
    own = folder / framework
    trained = Trained.read(framework, own)
    if trained is None:
        fit = importlib.import_module(FITS[framework]).fit
        trained = fit(model, plan, validation, own / "checkpoints", folder / "tensorboard" / framework)
        assert isinstance(trained, Trained)
        trained.write(own)
        shutil.rmtree(own / "checkpoints")
    return trained
