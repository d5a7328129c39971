"""SavedModel for TensorFlow Serving."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter, run_as_served


def write(model: Model, weights: Weights, folder: Path, _calibration: Arrays) -> None:
    """Write the SavedModel into `folder`, with the signature `serving_default`, and `encoded` for pictures."""
    keras_graph.write_saved_model(model, weights, folder)


EXPORTER = Exporter(
    target="tf-serving",
    files={"float32": ""},
    write=write,
    answer=partial(run_as_served, "tensorflow"),
    runtime="TensorFlow",
    backend="tensorflow",
    unequal_bytes="Keras lists the variables in another order each time, and fingerprint.pb has a random id",
    always_batched="TensorFlow's own server batches all that it serves",
)
