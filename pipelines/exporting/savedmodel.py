"""SavedModel for TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter


def write(model: Model, weights: Weights, folder: Path, _calibration: Arrays) -> None:
    """Write the SavedModel into `folder`, with the signature `serving_default`, and `encoded` for pictures."""
    keras_graph.write_saved_model(model, weights, folder)


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Run `serving_default` in TensorFlow with its graph optimizations, as TensorFlow Serving does."""
    import tensorflow as tf

    # Kept: a signature holds what it calls only weakly.
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[keras_graph.FLOAT_SIGNATURE]
    results = [
        signature(**{name: tf.constant(array) for name, array in inputs.items()}) for inputs in batches
    ]
    return [{t.name: result[t.name].numpy() for t in model.spec.task.outputs} for result in results]


EXPORTER = Exporter(
    files={"float32": ""},
    write=write,
    answer=answer,
    runtime="TensorFlow",
    backend="tensorflow",
    unequal_bytes="Keras lists the variables in another order each time, and fingerprint.pb has a random id",
    always_batched="TensorFlow's own server batches all that it serves",
)
