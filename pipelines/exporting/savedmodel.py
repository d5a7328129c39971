"""SavedModel for TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter
from serving.targets.base import Images, Outputs


def write(model: Model, weights: Weights, folder: Path, calibration: Images) -> None:  # noqa: ARG001
    """Write the SavedModel into `folder`, with the signatures `serving_default` and `encoded`."""
    keras_graph.write_saved_model(model, weights, folder)


def run(path: Path, images: Images) -> Outputs:
    """Run `serving_default` in TensorFlow."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures[keras_graph.FLOAT_SIGNATURE]
    (name,) = signature.structured_input_signature[1]
    result = signature(**{name: tf.constant(images)})
    return Outputs(result["logits"].numpy(), result["probabilities"].numpy())


EXPORTER = Exporter(
    target="tf-serving",
    variants={"float32": ""},
    write=write,
    run=run,
    unequal_bytes="Keras lists the variables in another order each time, and fingerprint.pb has a random id",
)
