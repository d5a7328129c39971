"""LiteRT (.tflite) models by ai-edge-litert, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from serving.server.backends.base import BACKENDS, check_exists, refusal
from serving.server.errors import ArtifactError
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signature, Tensors, TensorSpec


def load(directory: Path, file: str, threads: int) -> LitertServable:
    """Open `directory/file` (model.tflite by default)."""
    path = directory / (file or BACKENDS["litert"])
    check_exists(path)
    try:
        content = path.read_bytes()
        interpreter = Interpreter(model_content=content, num_threads=threads)
        if len(signatures := interpreter.get_signature_list()) > 1:
            raise ArtifactError(f"expected one signature, got {', '.join(signatures)}: make a file of each")
        servable = LitertServable(interpreter, _has_variables(content))
        specs = servable.signatures[DEFAULT_SIGNATURE].inputs
        try:
            interpreter.allocate_tensors()
        except RuntimeError as error:  # With free sizes, which are 1 here, it may be due to the size.
            if "unresolved custom op" in str(error) or all(-1 not in (spec.shape or ()) for spec in specs):
                raise
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"LiteRT cannot load {path}: {error}") from error
    return servable


class LitertServable:
    """An interpreter of a file, whose only signature is named `serving_default`."""

    def __init__(self, interpreter: Interpreter, variables: bool) -> None:
        """`variables`: True if there are variable tensors, to be reset before each run."""
        self._interpreter = interpreter
        self._variables = variables
        if interpreter.get_signature_list():  # With the names that the exporter gave to tensors.
            runner = interpreter.get_signature_runner()
            self._inputs, self._outputs = runner.get_input_details(), runner.get_output_details()
        else:
            self._inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
            self._outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.signatures = {DEFAULT_SIGNATURE: Signature(_specs(self._inputs), _specs(self._outputs))}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        interpreter = self._interpreter
        try:
            shapes = {name: array.shape for name, array in inputs.items()}
            if shapes != self._shapes:
                self._shapes = {}
                for name, shape in shapes.items():
                    interpreter.resize_tensor_input(self._inputs[name]["index"], shape)
                interpreter.allocate_tensors()
                self._shapes = shapes
            for name, array in inputs.items():
                interpreter.set_tensor(self._inputs[name]["index"], array)
            if self._variables:
                interpreter.reset_all_variables()
            interpreter.invoke()
            return {name: interpreter.get_tensor(self._outputs[name]["index"]) for name in outputs}
        except (ValueError, RuntimeError) as error:
            raise refusal("LiteRT", self.signatures[signature], inputs, str(error)) from error

    def close(self) -> None:
        del self._interpreter


def _has_variables(content: bytes) -> bool:
    """Return True if the file has variable tensors, as recurrent operators do.

    Raises `ArtifactError` for resource variables, which cannot be reset.
    """
    model = schema.Model.GetRootAs(content, 0)
    codes = (model.OperatorCodes(index).BuiltinCode() for index in range(model.OperatorCodesLength()))
    if schema.BuiltinOperator.VAR_HANDLE in codes:
        raise ArtifactError(
            "expected a model without state, got one with variables (VAR_HANDLE): what one request leaves in "
            "them would change the answer to the next; make the state an input and an output"
        )
    graphs = (model.Subgraphs(index) for index in range(model.SubgraphsLength()))
    return any(
        graph.Tensors(index).IsVariable() for graph in graphs for index in range(graph.TensorsLength())
    )


def _specs(details: Mapping[str, Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(n) for n in detail["shape_signature"]))
        for name, detail in details.items()
    )
