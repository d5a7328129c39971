"""ONNX in one file: from PyTorch, opset 20, an imported file, or TensorFlow; in int8 for the comparison."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import Model, Weights
from models.signature import Arrays, rows
from pipelines.exporting.base import Exporter, ExportError, one_line, quiet, run_as_served, traced
from pipelines.training.keras_on_torch import NAME as KERAS_ON_TORCH
from serving import golden
from serving.errors import TandemError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

OPSET, TF2ONNX_OPSET = 20, 18
CALIBRATION_ROWS = 256


def write(model: Model, weights: Weights, directory: Path, _calibration: Arrays) -> None:
    """Write `model.onnx`. Raises `ExportError` if the graph is not the expected one."""
    with traced(model):
        export(model, weights, directory / EXPORTER.serve)


def export(model: Model, weights: Weights, path: Path) -> None:
    """Write the model to `path` and check it: PyTorch's graph, the imported .onnx, or tf2onnx's."""
    import onnx

    from pipelines.exporting import imported

    artifact = model.spec.artifact
    if artifact is not None and artifact.format == "onnx":
        onnx.save(imported.onnx_graph(artifact), path)
        return
    if {"pytorch", "pt2"} & set(model.origins):
        from pipelines.exporting.torch_graph import servable

        _export_torch(servable(model, weights), model, path)
    else:
        write_by_tf2onnx(model, weights, path)
        _name(path, model)
    graph = onnx.load(path)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}") from error
    _check_signature(graph, model)


def write_by_tf2onnx(model: Model, weights: Weights, path: Path) -> None:
    """Write the model's graph in TensorFlow, or its .tflite file, to an ONNX file. Raises `ExportError`."""
    from pipelines.exporting import keras_graph

    artifact = model.spec.artifact
    try:
        if artifact is not None and artifact.format == "tflite":
            import tf2onnx

            logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
            tf2onnx.convert.from_tflite(str(artifact.file()), opset=TF2ONNX_OPSET, output_path=str(path))
            return
        _held, answer = keras_graph.graph(model, weights)

        import tensorflow as tf
        import tf2onnx

        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
        specs = keras_graph.tensor_specs(model.spec.signature)
        tf2onnx.convert.from_function(tf.function(answer), specs, opset=TF2ONNX_OPSET, output_path=str(path))
    except TandemError:
        raise
    except Exception as error:
        raise ExportError(f"tf2onnx failed: {one_line(error)}") from error


def _export_torch(network: Any, model: Model, path: Path) -> None:  # noqa: ANN401
    """Write a module, or a program that was traced already."""
    import torch

    from pipelines.exporting.torch_graph import dynamic_shapes, example

    spec = model.spec
    with quiet():
        program = torch.onnx.export(
            network,
            example(model),
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.task.outputs],
            dynamic_shapes=dynamic_shapes(model),
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch.onnx.export gave no program for {spec.name}")
    program.save(path, external_data=False)


def _name(path: Path, model: Model) -> None:
    """Put the spec's names on inputs, outputs and free dimensions of what tf2onnx wrote, or PyTorch from a program."""
    import onnx_ir

    from pipelines.exporting import imported

    artifact, signature, names = model.spec.artifact, model.spec.signature, dict[str, str]()
    if artifact is not None and artifact.format == "tflite":
        called = imported.tflite_names(artifact).items()
        names = {**artifact.names, **{tensor: artifact.names.get(name, name) for tensor, name in called}}
    tensors = {tensor.name: tensor for tensor in (*signature.inputs, *signature.outputs)}
    converted = onnx_ir.load(path)
    for value in (*converted.graph.inputs, *converted.graph.outputs):
        value.name = names.get(value.name or "", value.name)
        if tensor := tensors.get(value.name or ""):
            value.shape = onnx_ir.Shape(list(tensor.shape))
    onnx_ir.save(converted, path)


def write_int8(model: Model, weights: Weights, directory: Path, calibration: Arrays) -> None:
    """Write `model.onnx` with int8 weights, a scale for each channel, and uint8 activations (QDQ). Their ranges are
    read off the first 256 rows of `calibration`. Raises `ExportError`."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]
        left = iter(model.spec.signature.calls(rows(calibration, slice(CALIBRATION_ROWS)), 1))

        def get_next(self) -> Arrays | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        export(model, weights, plain)
        try:
            with quiet():
                quant_pre_process(plain, prepared)
                # Sums of 8 bit products overflow on a CPU without VNNI: 7 bits do not.
                quantization.quantize_static(
                    prepared, directory / INT8.serve, Rows(), per_channel=True, reduce_range=True
                )  # fmt: skip
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot quantize {model.spec.name}: {one_line(error)}") from error


def write_keras(model: Model, weights: Weights, directory: Path, _calibration: Arrays) -> None:
    """Write `model.onnx` from the program that Keras exports on PyTorch: its own ONNX takes TorchScript for free sizes,
    and fails at layer normalization. Raises `ModelError` or `ExportError`."""
    import torch

    from pipelines.exporting import keras_on_torch

    path = directory / EXPORTER.serve
    with tempfile.TemporaryDirectory() as folder, traced(model, "keras_model"):
        exported = Path(folder) / "model.pt2"
        keras_on_torch.write(model, weights, exported)
        _export_torch(torch.export.load(exported), model, path)
    _name(path, model)


def answer_unoptimized(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Run the file without ONNX Runtime's graph optimizations."""
    opened, names = session(path, optimized=False), [tensor.name for tensor in model.spec.task.outputs]
    return [run(opened, names, inputs) for inputs in batches]


def session(path: Path, optimized: bool = True) -> onnxruntime.InferenceSession:
    """Open a file in ONNX Runtime on one thread, without its log on stderr."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, names: Sequence[str], inputs: Arrays) -> Arrays:
    """Run one call. ONNX Runtime takes text as str."""
    given = {
        name: np.array([text.decode() for text in golden.texts(array)], object).reshape(array.shape)
        if array.dtype.kind == "O"
        else array
        for name, array in inputs.items()
    }
    return dict(zip(names, session.run(names, given), strict=True))


def _check_signature(graph: onnx.ModelProto, model: Model) -> None:
    spec = model.spec
    signature = spec.signature
    expected = {tensor.name: list(tensor.shape) for tensor in (*signature.inputs, *signature.outputs)}
    found = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    if found != expected:
        raise ExportError(f"ONNX of {spec.name}: expected inputs and outputs {expected}, it has {found}")


EXPORTER = Exporter(
    files={"float32": "model.onnx"},
    write=write,
    answer=partial(run_as_served, "onnxruntime"),
    runtime="ONNX Runtime",
    backend="onnxruntime",
)
INT8 = replace(EXPORTER, files={"int8": EXPORTER.serve}, write=write_int8)
FORMS = {"float32": EXPORTER, "int8": INT8, KERAS_ON_TORCH: replace(EXPORTER, write=write_keras)}
