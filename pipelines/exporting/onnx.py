"""PyTorch to ONNX: one file, opset 20, any batch size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting.base import Exporter, ExportError
from serving.targets.base import Images, Outputs

OPSET = 20


def write(model: Model, weights: Weights, directory: Path, _calibration: Images) -> None:
    """Write `model.onnx`. Raises `ExportError` where the graph is not the one that was asked for."""
    export(model, weights, directory / EXPORTER.serve)


def export(model: Model, weights: Weights, path: Path) -> None:
    """Write the network with these weights to `path` and check it."""
    import onnx
    import torch

    from pipelines.exporting.torch_graph import example, servable

    spec = model.spec
    with _quiet():
        program = torch.onnx.export(
            servable(model, weights),
            (example(model),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.input_name],
            output_names=list(spec.output_names),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
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


def answer(path: Path, batches: Sequence[Images], optimized: bool = True) -> list[Outputs]:
    """Run the file with ONNX Runtime on one thread, with its graph optimizations or without any."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [Outputs(*session.run(["logits", "probabilities"], {name: images})) for images in batches]


def _check_signature(graph: onnx.ModelProto, model: Model) -> None:  # type: ignore[name-defined]  # noqa: F821
    spec = model.spec
    expected = {spec.input_name: ["batch", *spec.image_shape]}
    expected |= {name: ["batch", len(spec.classes)] for name in spec.output_names}
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
    variants={"float32": "model.onnx"},
    write=write,
    answer=answer,
    runtime="ONNX Runtime",
    backend="onnxruntime",
)
