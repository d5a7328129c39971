"""Training the same model in both frameworks."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

from models.base import Model, Profile
from models.data import Dataset, Rows
from pipelines.gates import Check, require
from pipelines.training import frozen
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained, TrainingError, intact

FITS = {"tensorflow": "pipelines.training.keras_fit", "pytorch": "pipelines.training.lightning_fit"}


def train(
    framework: str, model: Model, profile: Profile, seed: int, dataset: Dataset, folder: Path
) -> Trained:
    """Train in one framework, or return what is already trained in `folder / framework`.

    A training that was cut off goes on from its last epoch. TensorBoard logs of both frameworks go to
    `folder / tensorboard`. Raises `GateError` where a finished training was changed since, `TrainingError` where the
    loss is no number any more.
    """
    own = folder / framework
    name = f"{framework}: trainings in {own} that were changed since they ended"
    unchanged = Check("integrity", name, int(not intact(own)), "<=", 0)
    require([unchanged])
    done = Trained.read(framework, own)
    if done is not None:
        return replace(done, cached=True, checks=(unchanged,))
    fit = importlib.import_module(FITS[framework]).fit
    rows = _labelled(dataset, profile.training_rows)
    if profile.frozen:
        model, rows = frozen.prepare(model, profile, seed, rows, folder / "features.npz")
    logs = folder / "tensorboard" / framework
    try:
        trained = fit(model, BatchPlan(model, rows[0], profile, seed), rows[1], own / "checkpoints", logs)
    except TrainingError as error:
        raise TrainingError(f"{framework}: {error}") from None
    assert isinstance(trained, Trained)
    trained.write(own)
    shutil.rmtree(own / "checkpoints")
    return replace(trained, checks=(unchanged,))


def _labelled(dataset: Dataset, count: int | None) -> tuple[Rows, Rows]:
    """As many training rows, and of the validation rows the same share."""
    if count is None:
        return dataset.train, dataset.validation
    share = min(1.0, count / len(dataset.train))
    return dataset.train.take(slice(count)), dataset.validation.take(
        slice(max(1, round(share * len(dataset.validation))))
    )
