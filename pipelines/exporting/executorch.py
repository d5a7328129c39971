"""PyTorch to ExecuTorch: a .pte file for phones, in float32 or int8, which XNNPACK runs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.base import Model, Weights
from models.signature import Arrays, batch_size, rows
from pipelines.exporting.base import Exporter, ExportError, one_line, quiet, traced
from serving.compare.executorch import Program, require

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MOST_ROWS = 128
"""In one run: ExecuTorch plans memory for the largest batch, and refuses a larger one."""
CALIBRATION_ROWS = 256


def write(precision: str, model: Model, weights: Weights, folder: Path, calibration: Arrays) -> None:
    """Write the PyTorch network with its outputs in the signature's order, for batches of 1 to `MOST_ROWS`.

    int8 means weights, by channel, and activations, whose ranges are read off the first 256 rows of `calibration`.
    Raises `ExportError`, and `InstallError` where the converter cannot be had.
    """
    if free := [tensor.name for tensor in model.spec.inputs if tensor.free]:
        raise ExportError(
            f"ExecuTorch needs the largest size of each input; sizes of {', '.join(free)} are free"
        )
    require()
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    from pipelines.exporting import torch_graph

    with traced(model), quiet():
        program = torch_graph.program(torch_graph.servable(model, weights), model, MOST_ROWS)
    try:
        with quiet():
            if precision == "int8":
                program = _quantized(program, model, calibration)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            calls = [str(node.target) for node in lowered.exported_program().graph.nodes]
            contents = lowered.to_executorch().buffer
    except Exception as error:
        raise ExportError(f"ExecuTorch's converter failed for {precision}: {one_line(error)}") from error
    if "executorch_call_delegate" not in calls:
        raise ExportError("XNNPACK takes none of the network's operators")
    (folder / FORMS[precision].serve).write_bytes(contents)


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Run a .pte file in a process of its own, which ExecuTorch ends where one of its checks fails.

    Raises `ExportError`.
    """
    inputs, outputs = ([t.name for t in own] for own in (model.spec.inputs, model.spec.task.outputs))
    calls = [[batch[name] for name in inputs] for batch in batches]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_silent) as pool:
        try:
            answers = pool.submit(_run, path, calls).result()
        except BrokenProcessPool:
            raise ExportError(f"ExecuTorch ended its process while it ran {path.name}") from None
        except Exception as error:
            raise ExportError(f"ExecuTorch cannot run {path.name}: {one_line(error)}") from error
    return [dict(zip(outputs, own, strict=True)) for own in answers]


def _run(path: Path, calls: Sequence[Any]) -> list[Any]:
    program = Program(path)
    return [program(call) for call in calls]


def _silent() -> None:
    """Keep the runtime's remarks off the terminal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _quantized(program: ExportedProgram, model: Model, calibration: Arrays) -> ExportedProgram:
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from pipelines.exporting import torch_graph

    if not batch_size(calibration):
        raise ExportError("int8 needs rows to calibrate on, and there are none")
    config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    observed = prepare_pt2e(program.module(), xnnpack_quantizer.XNNPACKQuantizer().set_global(config))
    for call in model.spec.signature.calls(rows(calibration, slice(CALIBRATION_ROWS)), MOST_ROWS):
        observed(*torch_graph.tensors(model, call))
    # An exported program takes its inputs one by one.
    (shapes,) = torch_graph.dynamic_shapes(model, MOST_ROWS)
    example = torch_graph.example(model, MOST_ROWS)
    return torch.export.export(convert_pt2e(observed), example, dynamic_shapes=shapes)


EXPORTER = Exporter(
    files={"float32": "model.pte"},
    write=partial(write, "float32"),
    answer=answer,
    runtime="ExecuTorch (XNNPACK)",
)
FORMS = {
    "float32": EXPORTER,
    "int8": replace(EXPORTER, files={"int8": "model_int8.pte"}, write=partial(write, "int8")),
}
