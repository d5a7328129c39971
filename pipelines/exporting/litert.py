"""TensorFlow Lite files for LiteRT, in three precisions."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from models.base import Model, Weights
from models.signature import Arrays, rows
from pipelines.exporting import imported, keras_graph
from pipelines.exporting.base import Exporter, ExportError, quiet, run_as_served

FILES = {"float32": "model.tflite", "float16": "model_float16.tflite", "int8": "model_int8.tflite"}
CALIBRATION_ROWS = 256


def write(model: Model, weights: Weights, folder: Path, calibration: Arrays) -> None:
    """Write the model's precisions; each has the signature `serving_default`, any batch, and the model's dtypes.

    int8 means weights and activations: its ranges are read off the first 256 rows of `calibration`.
    Raises `ExportError` where there are none, or where a converter fails.
    """
    artifact = model.spec.artifact
    if artifact is not None and artifact.format == "tflite":
        (folder / EXPORTER.serve).write_bytes(imported.tflite(artifact))
        return
    calls = model.spec.signature.calls(rows(calibration, slice(CALIBRATION_ROWS)), 1)
    if not calls:
        raise ExportError("litert: int8 needs rows to calibrate on, and there are none")
    with tempfile.TemporaryDirectory() as saved_model:
        keras_graph.write_saved_model(model, weights, Path(saved_model), served=False)
        for precision, name in EXPORTER.variants(model).items():
            (folder / name).write_bytes(_convert(saved_model, precision, calls))


def _convert(saved_model: str, precision: str, calls: Sequence[Arrays]) -> bytes:
    import tensorflow as tf

    converter: Any = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=[keras_graph.FLOAT_SIGNATURE]
    )
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(calls)
        # Indices and masks have no int8 form: what needs one has it, the rest stays as it is.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
    try:
        with _silent():
            contents: bytes = converter.convert()
    except Exception as error:
        raise ExportError(f"litert: the converter failed for {precision}: {_reason(error)}") from error
    return contents


def _reason(error: Exception) -> str:
    """The operation that failed, and the layer that it is of; the converter goes on with the whole graph."""
    text = " ".join(str(error).split())
    operation, place = re.search(r"'tf\.(\w+)' op", text), re.search(r'\["\w+:", "([^"@]+)@', text)
    if operation is None or place is None:
        return text[:500]
    return (
        f"LiteRT has no {operation[1]} of this kind, which {place[1]} is made with; docs/conversions.md has the known "
        "ones and what to write instead"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the converter's remarks, which its C++ half writes past Python, off the terminal."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere, quiet():
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


EXPORTER = Exporter(
    files=FILES,
    write=write,
    answer=partial(run_as_served, "litert"),
    runtime="LiteRT",
    backend="litert",
)
