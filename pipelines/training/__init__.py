"""Training the same model in both frameworks."""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from models.base import Model, Profile
from models.data import Dataset, Rows
from pipelines.gates import Check, require
from pipelines.training import frozen
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained, TrainingError, intact

PRECISIONS = ("float32", "bf16")
"""Of a training's arithmetic, on a CPU. Weights, and what is exported, are float32."""
FITS = {"tensorflow": "pipelines.training.keras_fit", "pytorch": "pipelines.training.lightning_fit"}


def require_precision(precision: str) -> None:
    """Raise `TrainingError` where the device of the trainings has no such arithmetic."""
    if precision not in PRECISIONS:
        has = " and ".join(PRECISIONS)
        raise TrainingError(f"precision {precision} needs a GPU; trainings run on the CPU, which has {has}")


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
    rows = _labelled(dataset, profile.training_rows)
    logs = folder / "tensorboard" / framework
    try:
        with growth() as grown:
            if profile.frozen:
                model, rows = frozen.prepare(model, profile, seed, rows, folder / "features.npz")
            fit = importlib.import_module(FITS[framework]).fit
            plan = BatchPlan(model, rows[0], profile, seed)
            trained = fit(model, plan, rows[1], own / "checkpoints", logs)
    except TrainingError as error:
        raise TrainingError(f"{framework}: {error}") from None
    assert isinstance(trained, Trained)
    trained = replace(trained, history=replace(trained.history, peak_bytes=max(grown)))
    trained.write(own)
    shutil.rmtree(own / "checkpoints")
    return replace(trained, checks=(unchanged,))


@contextmanager
def growth() -> Iterator[list[int]]:
    """Bytes by which this process has grown, ten times a second until the block ends."""
    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss
    grown = [0]

    def watch() -> None:
        while not done.wait(0.1):
            grown.append(process.memory_info().rss - start)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield grown
    finally:
        done.set()
        watcher.join()


def _labelled(dataset: Dataset, count: int | None) -> tuple[Rows, Rows]:
    """As many training rows, and of the validation rows the same share."""
    if count is None:
        return dataset.train, dataset.validation
    share = min(1.0, count / len(dataset.train))
    return dataset.train.take(slice(count)), dataset.validation.take(
        slice(max(1, round(share * len(dataset.validation))))
    )
