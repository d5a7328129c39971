"""ONNX from TensorFlow: a second road to the format that PyTorch exports, to check the one by the other."""

from __future__ import annotations

import logging
from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting import keras_graph
from serving.targets.base import Images, Outputs

OPSET = 18


def write(model: Model, weights: Weights, path: Path) -> None:
    """Write the Keras network to an ONNX file: input `image`, outputs `logits` and `probabilities`."""
    network = keras_graph.network(model, weights)

    import tensorflow as tf
    import tf2onnx

    spec = model.spec
    logits_name, probabilities_name = spec.output_names

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = network(image, training=False)
        return {logits_name: logits, probabilities_name: tf.nn.softmax(logits)}

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = [tf.TensorSpec((None, *spec.image_shape), tf.float32, name=spec.input_name)]
    tf2onnx.convert.from_function(tf.function(classify), signature, opset=OPSET, output_path=str(path))


def run(path: Path, images: Images) -> Outputs:
    """Run an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (i.name for i in session.get_inputs())
    logits, probabilities = session.run(["logits", "probabilities"], {name: images})
    return Outputs(logits, probabilities)
