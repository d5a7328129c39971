"""ONNX models by ONNX Runtime, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from serving.server.errors import ArtifactError, BackendError, InvalidRequestError
from serving.server.tensors.signature import BYTES, DEFAULT_SIGNATURE, Array, Signature, Tensors, TensorSpec

FILE = "model.onnx"
BFLOAT16 = "bfloat16"
ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16."""

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": BFLOAT16,
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
        self._arguments: Sequence[ort.NodeArg] = session.get_inputs()
        signature = Signature(_specs(self._arguments), _specs(session.get_outputs()))
        self._strings = {spec.name for spec in signature.inputs if spec.dtype == BYTES}
        self._bfloat16 = any(spec.dtype == BFLOAT16 for spec in (*signature.inputs, *signature.outputs))
        self.signatures = {DEFAULT_SIGNATURE: signature}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
        if self._session is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        if self._strings:
            inputs = inputs | {name: _text(name, inputs[name]) for name in self._strings}
        try:
            if self._bfloat16:
                return _run_bfloat16(self._session, inputs, outputs)
            # A binding saves nothing on a CPU, and values of its own cost more. What is around the `_sess` checks
            # what our callers have checked, in a twentieth of the time that a small model takes.
            values = self._session._sess.run(list(outputs), inputs, None)
        except InvalidArgument as error:
            raise InvalidRequestError(f"the model refused its input: {error}") from error
        except Exception as error:
            self._check_free_sizes(inputs)
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(outputs, values, strict=True))

    def _check_free_sizes(self, inputs: Tensors) -> None:
        """Raise `InvalidRequestError` where sizes that the model calls by one name differ."""
        sizes: dict[str, int] = {}
        for argument in self._arguments:
            for axis, symbol in enumerate(argument.shape):
                size = inputs[argument.name].shape[axis]
                if isinstance(symbol, str) and sizes.setdefault(symbol, size) != size:
                    raise InvalidRequestError(
                        f"input {argument.name!r}: expected size {sizes[symbol]} in dimension {axis} ({symbol}), "
                        f"as in the inputs before it, got {size}"
                    )

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


def _run_bfloat16(session: ort.InferenceSession, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
    """As `session.run`, which takes and gives no arrays of bfloat16: their bits go in and are read out."""
    given = {name: _ort_value(array) for name, array in inputs.items()}
    values = session.run_with_ort_values(list(outputs), given)
    return {name: _array(value) for name, value in zip(outputs, values, strict=True)}


def _ort_value(array: Array) -> ort.OrtValue:
    if array.dtype.name != BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ONNX_BFLOAT16)


def _array(value: ort.OrtValue) -> Array:
    if value.data_type() != f"tensor({BFLOAT16})":
        array: Array = value.numpy()
        return array
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, np.dtype(BFLOAT16)).reshape(value.shape())


def _text(name: str, array: Array) -> Array:
    try:
        texts = [value.decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"input {name!r}: expected text in UTF-8, as ONNX has strings, got bytes that are none: {error}"
        ) from None
    return np.array(texts, object).reshape(array.shape)
