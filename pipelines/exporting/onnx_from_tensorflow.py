"""ONNX from TensorFlow: a second road to the format that PyTorch exports, to check the one by the other."""

from __future__ import annotations

import logging
from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting import keras_graph

OPSET = 18


def write(model: Model, weights: Weights, path: Path) -> None:
    """Write the Keras network to an ONNX file with the model's signature."""
    network = keras_graph.network(model, weights)

    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    tf2onnx.convert.from_function(
        tf.function(keras_graph.answering(model, network)),
        keras_graph.tensor_specs(model.spec.signature),
        opset=OPSET,
        output_path=str(path),
    )
