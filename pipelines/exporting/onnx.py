"""PyTorch to ONNX: one file, opset 20, any batch size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.base import Model, Weights
from models.signature import BATCH, Arrays
from pipelines.exporting.base import Exporter, ExportError, traced

OPSET = 20


def write(model: Model, weights: Weights, directory: Path, _calibration: Arrays) -> None:
    """Write `model.onnx`. Raises `ExportError` where the graph is not the one that was asked for."""
    with traced(model):
        export(model, weights, directory / EXPORTER.serve)


def export(model: Model, weights: Weights, path: Path) -> None:
    """Write the network with these weights to `path` and check it."""
    import onnx
    import torch

    from pipelines.exporting.torch_graph import example, servable

    spec, inputs = model.spec, example(model)
    with _quiet():
        program = torch.onnx.export(
            servable(model, weights),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.task.outputs],
            dynamic_shapes=(tuple({0: torch.export.Dim(BATCH)} for _ in inputs),),
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch.onnx.export gave no program for {spec.name}")
    program.save(path, external_data=False)
    graph = onnx.load(path)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}") from error
    _check_signature(graph, model)


def answer(path: Path, model: Model, batches: Sequence[Arrays], optimized: bool = True) -> list[Arrays]:
    """Run the file with ONNX Runtime on one thread, with its graph optimizations or without any."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in model.spec.task.outputs]
    return [dict(zip(names, session.run(names, inputs), strict=True)) for inputs in batches]


def _check_signature(graph: onnx.ModelProto, model: Model) -> None:  # type: ignore[name-defined]  # noqa: F821
    spec = model.spec
    signature = spec.signature
    expected = {tensor.name: list(tensor.shape) for tensor in (*signature.inputs, *signature.outputs)}
    found = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    if found != expected:
        raise ExportError(f"ONNX of {spec.name}: expected inputs and outputs {expected}, it has {found}")
    opset = {imported.domain: imported.version for imported in graph.opset_import}[""]
    if opset != OPSET:
        raise ExportError(f"ONNX of {spec.name}: expected opset {OPSET}, it has {opset}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter prints its progress, and its libraries warn about each other.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


EXPORTER = Exporter(
    target="onnxruntime",
    files={"float32": "model.onnx"},
    write=write,
    answer=answer,
    runtime="ONNX Runtime",
    backend="onnxruntime",
)
