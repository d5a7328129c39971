"""ONNX from TensorFlow: for models without a PyTorch network, and as a check of ONNX from PyTorch."""

from __future__ import annotations

import logging
from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting import keras_graph
from pipelines.exporting.base import ExportError, one_line
from serving.errors import TandemError

OPSET = 18


def write(model: Model, weights: Weights, path: Path) -> None:
    """Write the model's graph in TensorFlow, or its .tflite file, to an ONNX file. Raises `ExportError`."""
    artifact = model.spec.artifact
    try:
        if artifact is not None and artifact.format == "tflite":
            import tf2onnx

            _quiet()
            tf2onnx.convert.from_tflite(str(artifact.file()), opset=OPSET, output_path=str(path))
            return
        _held, answer = keras_graph.graph(model, weights)

        import tensorflow as tf
        import tf2onnx

        _quiet()
        tf2onnx.convert.from_function(
            tf.function(answer),
            keras_graph.tensor_specs(model.spec.signature),
            opset=OPSET,
            output_path=str(path),
        )
    except TandemError:
        raise
    except Exception as error:
        raise ExportError(f"tf2onnx failed: {one_line(error)}") from error


def _quiet() -> None:
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
