"""LiteRT (.tflite) models by ai-edge-litert, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from serving.server.backends.base import BACKENDS, check_exists, refusal
from serving.server.errors import ArtifactError, BackendError
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signature, Tensors, TensorSpec

UNRESOLVED = "unresolved custom op"
"""What LiteRT says where a file needs an operator that is not in this build."""


def load(directory: Path, file: str, threads: int) -> LitertServable | SignaturesServable:
    """Open `directory/file` (model.tflite by default)."""
    path = directory / (file or BACKENDS["litert"])
    check_exists(path)
    try:
        content = path.read_bytes()
        interpreter = Interpreter(model_content=content, num_threads=threads)
        variables = _has_variables(content)
        servable: LitertServable | SignaturesServable
        if len(interpreter.get_signature_list()) <= 1:
            servable = LitertServable(interpreter, variables)
        elif not variables:
            servable = SignaturesServable(interpreter)
        else:
            raise ArtifactError("expected variable tensors in files with one signature only")
        _allocate(interpreter, servable.signatures)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"LiteRT cannot load {path}: {error}") from error
    return servable


class LitertServable:
    """One interpreter of a file with at most one signature, which is `serving_default` here."""

    def __init__(self, interpreter: Interpreter, variables: bool) -> None:
        """`variables`: whether there are variable tensors, which every run then finds as the first one did."""
        self._interpreter: Interpreter | None = interpreter
        self._variables = variables
        if interpreter.get_signature_list():  # It has the names that the exporter gave the tensors.
            runner = interpreter.get_signature_runner()
            self._inputs, self._outputs = runner.get_input_details(), runner.get_output_details()
        else:
            self._inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
            self._outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.signatures = {DEFAULT_SIGNATURE: Signature(_specs(self._inputs), _specs(self._outputs))}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        interpreter = self._interpreter
        if interpreter is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
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
        self._interpreter = None


class SignaturesServable:
    """One interpreter of a file with several signatures, by their own names; each is a graph of its own."""

    def __init__(self, interpreter: Interpreter) -> None:
        # `invoke` must not be called beside runners, which cost 10 us more a call.
        self._runners = {k: interpreter.get_signature_runner(k) for k in interpreter.get_signature_list()}
        self._lock = Lock()
        """LiteRT allows no call of the interpreter, and so of another runner, while a runner is called."""
        self.signatures = {
            key: Signature(_specs(runner.get_input_details()), _specs(runner.get_output_details()))
            for key, runner in self._runners.items()
        }

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        runner = self._runners.get(signature)
        if runner is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        try:
            with self._lock:
                answer = runner(**inputs)
        except (ValueError, RuntimeError) as error:
            raise refusal("LiteRT", self.signatures[signature], inputs, str(error)) from error
        return {name: answer[name] for name in outputs}

    def close(self) -> None:
        self._runners.clear()


def _has_variables(content: bytes) -> bool:
    """Return True if operators keep tensors for the next run, as recurrent ones do.

    Raises `ArtifactError` for variables that a graph of their own sets: nothing restores their first values.
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


def _allocate(interpreter: Interpreter, signatures: Mapping[str, Signature]) -> None:
    """Raise `RuntimeError` where the file can never run. A free size, here 1, may be what it does not take."""
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        inputs = [spec for signature in signatures.values() for spec in signature.inputs]
        if UNRESOLVED in str(error) or all(-1 not in (spec.shape or ()) for spec in inputs):
            raise


def _specs(details: Mapping[str, Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(n) for n in detail["shape_signature"]))
        for name, detail in details.items()
    )
