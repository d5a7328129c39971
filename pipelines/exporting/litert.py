"""TensorFlow Lite files for LiteRT, in three precisions."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.base import Model, Weights
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter, ExportError
from serving.targets.base import Images, Outputs

VARIANTS = {"float32": "model.tflite", "float16": "model_float16.tflite", "int8": "model_int8.tflite"}
CALIBRATION_PICTURES = 256


def write(model: Model, weights: Weights, folder: Path, calibration: Images) -> None:
    """Write all precisions; each has the signature `serving_default`, any batch, and float32 in and out.

    int8 means weights and activations: its ranges are read off the first 256 of the `calibration` pictures.
    Raises `ExportError` where there are none, or where a converter fails.
    """
    if not len(calibration):
        raise ExportError("litert: int8 needs pictures to calibrate on, and there are none")
    with tempfile.TemporaryDirectory() as saved_model:
        keras_graph.write_saved_model(model, weights, Path(saved_model), served=False)
        for precision, name in VARIANTS.items():
            contents = _convert(saved_model, precision, model.spec.input_name, calibration)
            (folder / name).write_bytes(contents)


def answer(path: Path, batches: Sequence[Images]) -> list[Outputs]:
    """Run a .tflite file in LiteRT's interpreter. Raises `ExportError` where it lacks our signature."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=2)
    signature = interpreter.get_signature_list().get(keras_graph.FLOAT_SIGNATURE)
    if signature is None:
        raise ExportError(f"{path}: expected the signature {keras_graph.FLOAT_SIGNATURE}")
    (name,) = signature["inputs"]
    # The runner resizes the input to the batch.
    runner = interpreter.get_signature_runner(keras_graph.FLOAT_SIGNATURE)
    results = (runner(**{name: images}) for images in batches)
    return [Outputs(result["logits"], result["probabilities"]) for result in results]


def _convert(saved_model: str, precision: str, input_name: str, calibration: Images) -> bytes:
    import tensorflow as tf

    def representative() -> Iterator[dict[str, Images]]:
        for index in range(min(len(calibration), CALIBRATION_PICTURES)):
            yield {input_name: calibration[index : index + 1]}

    converter: Any = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=[keras_graph.FLOAT_SIGNATURE]
    )
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    try:
        with _quiet():
            contents: bytes = converter.convert()
    except Exception as error:
        raise ExportError(f"litert: the converter failed for {precision}: {error}") from error
    return contents


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's remarks, which its C++ half writes past Python, off a terminal that shows progress."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


EXPORTER = Exporter(
    target="litert", variants=VARIANTS, write=write, answer=answer, runtime="LiteRT", backend="litert"
)
