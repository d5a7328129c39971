"""ONNX models by ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serving.server.errors import ArtifactError, BackendError
from serving.server.signature import BYTES, DEFAULT_SIGNATURE, Array, Signature, Tensors, TensorSpec

FILE = "model.onnx"

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": BYTES,
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def load(directory: Path, file: str, threads: int) -> OnnxServable:
    """Open `directory/file` (model.onnx by default)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would burn the cores that the other requests need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = directory / (file or FILE)
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {error}") from error
    return OnnxServable(session)


class OnnxServable:
    """One ONNX Runtime session with the one signature `serving_default`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        signature = Signature(_specs(session.get_inputs()), _specs(session.get_outputs()))
        self._strings = {spec.name for spec in signature.inputs if spec.dtype == BYTES}
        self.signatures = {DEFAULT_SIGNATURE: signature}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
        if self._session is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        texts = {name: _text(inputs[name]) for name in self._strings}
        try:
            values = self._session.run(list(outputs), inputs | texts)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(outputs, values, strict=True))

    def close(self) -> None:
        """As `Servable.close`."""
        self._session = None


def _specs(arguments: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    specs = []
    for argument in arguments:
        if argument.type not in DTYPES:
            raise ArtifactError(f"tensor {argument.name} is of type {argument.type}, which is not served")
        # Symbolic dimensions come as names or None.
        shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
        specs.append(TensorSpec(argument.name, DTYPES[argument.type], shape))
    return tuple(specs)


def _text(array: Array) -> Array:
    texts = [value.decode("utf-8", "replace") for value in array.ravel().tolist()]
    return np.array(texts, object).reshape(array.shape)
