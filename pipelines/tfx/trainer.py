"""The `run_fn` of Trainer: the Keras training of every run, on the records of ExampleGen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

import models.base
from models.base import Profile
from pipelines.exporting import keras_graph
from pipelines.tfx import EXTRA, examples
from pipelines.training import keras_fit
from pipelines.training.batches import BatchPlan


def run_fn(arguments: Any) -> None:  # noqa: ANN401
    """Train with the request's profile and seed; write a SavedModel with the weights beside its graph.

    `arguments` are TFX's FnArgs; its `custom_config` holds `model`, `profile` and `seed`.
    """
    config = arguments.custom_config
    model = models.base.load(config["model"])
    train = examples.read(_records(arguments.train_files), model.spec)
    validation = examples.read(_records(arguments.eval_files), model.spec)
    plan = BatchPlan(model, train, Profile(**config["profile"]), config["seed"])
    run = Path(arguments.model_run_dir)
    trained = keras_fit.fit(model, plan, validation, run / "checkpoints", run / "tensorboard")
    folder = Path(arguments.serving_model_dir)
    keras_graph.write_saved_model(model, trained.weights, folder, examples=True)
    trained.write(folder / EXTRA)


def _records(patterns: list[str]) -> list[str]:
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
