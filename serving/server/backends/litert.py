"""LiteRT (.tflite) models by ai-edge-litert, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from serving.server.errors import ArtifactError, BackendError
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signature, Tensors, TensorSpec

FILE = "model.tflite"


def load(directory: Path, file: str, threads: int) -> LitertServable | SignaturesServable:
    """Open `directory/file` (model.tflite by default)."""
    path = directory / (file or FILE)
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"LiteRT cannot load {path}: {error}") from error
    keys = interpreter.get_signature_list()
    return SignaturesServable(interpreter, list(keys)) if len(keys) > 1 else LitertServable(interpreter)


class LitertServable:
    """One interpreter of a file with one signature or none: it is `serving_default` here.

    It is resized where a batch differs in shape from the one before it.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter: Interpreter | None = interpreter
        inputs = {d["name"]: d for d in interpreter.get_input_details()}
        outputs = {d["name"]: d for d in interpreter.get_output_details()}
        names = _signature_names(interpreter)
        self._inputs = {name: inputs[tensor] for name, tensor in names[0].items()} if names else inputs
        self._outputs = {name: outputs[tensor] for name, tensor in names[1].items()} if names else outputs
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.signatures = {DEFAULT_SIGNATURE: Signature(_specs(self._inputs), _specs(self._outputs))}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
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
            interpreter.invoke()
            return {name: interpreter.get_tensor(self._outputs[name]["index"]) for name in outputs}
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"LiteRT failed: {error}") from error

    def close(self) -> None:
        """As `Servable.close`."""
        self._interpreter = None


class SignaturesServable:
    """One interpreter of a file with several signatures, by their own names; each is a graph of its own."""

    def __init__(self, interpreter: Interpreter, keys: Sequence[str]) -> None:
        # `invoke` must not be called beside runners, which cost 10 us more a call.
        self._runners = {key: interpreter.get_signature_runner(key) for key in keys}
        self.signatures = {
            key: Signature(_specs(runner.get_input_details()), _specs(runner.get_output_details()))
            for key, runner in self._runners.items()
        }

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
        runner = self._runners.get(signature)
        if runner is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        try:
            answer = runner(**inputs)
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"LiteRT failed: {error}") from error
        return {name: answer[name] for name in outputs}

    def close(self) -> None:
        """As `Servable.close`."""
        self._runners.clear()


def _signature_names(interpreter: Interpreter) -> tuple[dict[str, str], dict[str, str]] | None:
    """Tensor names by the names that the exporter gave them, where the file carries a signature."""
    if not interpreter.get_signature_list():
        return None
    runner = interpreter.get_signature_runner()
    return (
        {name: detail["name"] for name, detail in runner.get_input_details().items()},
        {name: detail["name"] for name, detail in runner.get_output_details().items()},
    )


def _specs(details: Mapping[str, Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(n) for n in detail["shape_signature"]))
        for name, detail in details.items()
    )
