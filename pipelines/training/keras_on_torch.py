"""Keras on PyTorch: the network of keras_model.py in the loop of keras_fit.py, with `KERAS_BACKEND=torch`.

A process has one backend, so `fit` runs in one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from models.base import Model, ModelError
from models.data import Rows
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained, TrainingError

NAME = "keras-on-pytorch"
"""Beside `tensorflow` and `pytorch`."""
OUT_OF_MEMORY = ()


@contextmanager
def backend(model: Model) -> Iterator[None]:
    """Have Keras on PyTorch in a process that has not imported it yet.

    Raises `ModelError` in place of what the network raises there.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        yield
    except (TrainingError, OSError, MemoryError):
        raise
    except Exception as error:
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
        # Keras has a faster AdamW on PyTorch, where gradients are whole.
        compiled = {"optimizer": keras.optimizers.AdamW, "xla": False}
        return replace(keras_fit.run(model, plan, validation, journal, **compiled), framework=NAME)
