"""Keras on PyTorch: the network of keras_model.py in the loop of keras_fit.py, with `KERAS_BACKEND=torch`.

A process has one backend, so `fit` runs in one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.base import Model, ModelError, Weights
from models.data import Rows
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained
from serving.errors import TandemError

NAME = "keras-on-pytorch"
"""Beside `tensorflow` and `pytorch`."""


@dataclass(frozen=True)
class Started(Model):
    """A model with the weights to `start` from: a backend's own random numbers are not another's."""

    start: Weights = field(default_factory=dict)

    def initial_weights(self, seed: int) -> Weights:
        return self.start


@contextmanager
def backend(model: Model) -> Iterator[None]:
    """Have Keras on PyTorch in a process that has not imported it yet.

    Raises `ModelError` in place of what the network raises there.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    if keras.config.backend() != "torch":
        raise RuntimeError(f"Keras runs on {keras.config.backend()} here: expected a process without it")
    try:
        yield
    except Exception as error:
        if isinstance(error, TandemError | OSError | MemoryError) and not isinstance(error, ModelError):
            raise
        told = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"the network of {model.spec.name} does not run in Keras on PyTorch: {' '.join(told.split())}. "
            "Operations of TensorFlow (tf.*) run on TensorFlow only, those of keras.ops on both"
        ) from error


def fit(model: Model, plan: BatchPlan, validation: Rows, checkpoints: Path, logs: Path) -> Trained:
    """Train, or go on from the last checkpoint, on one CPU in float32, operation by operation."""
    with backend(model):
        import keras
        import torch

        from pipelines.training import keras_fit
        from pipelines.training.journal import Journal

        keras.utils.set_random_seed(plan.seed)
        torch.use_deterministic_algorithms(True)
        journal = Journal(plan, checkpoints, logs, ".keras", "cpu")
        return replace(keras_fit.run(model, plan, validation, journal), framework=NAME)
