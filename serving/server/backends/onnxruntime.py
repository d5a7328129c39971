"""ONNX models by ONNX Runtime, on the CPU."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serving.repository import GOLDEN, MANIFEST
from serving.server.backends.base import BACKENDS, check_exists, refusal
from serving.server.errors import ArtifactError, BackendError, InvalidRequestError
from serving.server.tensors.signature import BYTES, DEFAULT_SIGNATURE, Array, Signature, Tensors, TensorSpec

BFLOAT16 = "bfloat16"
ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16."""
FATAL = 4

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": BFLOAT16,
    "tensor(bool)": "bool",
    "tensor(string)": BYTES,
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


log = logging.getLogger("tandem.server")
_said: set[tuple[str, str]] = set()
"""Places in ONNX Runtime's code that have warned, each with the model's version."""


def _tell(_severity: int, _category: str, version: str, location: str, message: str) -> None:
    """Log what ONNX Runtime says, once for each place in its code: some of it comes with every run."""
    if (version, location) not in _said:
        _said.add((version, location))
        log.warning("%s: ONNX Runtime: %s", version or "any model", message.strip())


# In the place of coloured lines on stderr.
ort.set_default_logger_callback(_tell)


def load(directory: Path, file: str, threads: int) -> OnnxServable:
    """Open `directory/file` (model.onnx by default)."""
    path = directory / (file or BACKENDS["onnxruntime"])
    check_exists(path)
    version = f"model {directory.parent.name}, version {directory.name}"
    _said.difference_update([said for said in _said if said[0] == version])
    options = ort.SessionOptions()
    options.logid = version
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would burn the cores that the other requests need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern is kept for every shape that ever came. Without them the arena stays near what the largest run needs;
    # shrinking it after each run, or malloc in its place, costs up to twice the CPU and has higher peaks.
    options.enable_mem_pattern = False
    try:
        model, _weights = _in_memory(path, options)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {error}") from error
    return OnnxServable(session, version)


def _in_memory(path: Path, options: ort.SessionOptions) -> tuple[bytes | str, list[bytes]]:
    """What to open so that no weights are mapped from files that may change, and the bytes to keep until then.

    ONNX Runtime reads the model into memory, but maps files of weights beside it, unless they are given as bytes.
    A session from bytes keeps these, so a model without such files is opened by its path.
    """
    folder = path.parent
    beside = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p != path}
    for ours in (MANIFEST, GOLDEN):
        beside.pop(ours, None)
    if not beside:
        return str(path), []
    contents = [p.read_bytes() for p in beside.values()]
    options.add_external_initializers_from_files_in_memory(
        list(beside), contents, [len(content) for content in contents]
    )
    return path.read_bytes(), contents


class OnnxServable:
    """One ONNX Runtime session with the one signature `serving_default`."""

    def __init__(self, session: ort.InferenceSession, version: str) -> None:
        self._session: ort.InferenceSession | None = session
        optional = session.get_overridable_initializers()
        made = [argument for argument in session.get_outputs() if argument.type in DTYPES]
        left_out = [f"{a.name} ({a.type})" for a in session.get_outputs() if a.type not in DTYPES]
        if left_out:
            log.warning("%s: left out, for they are no tensors that are served: %s", version, left_out)
        if not made:
            raise ArtifactError(f"expected an output that is a tensor, got {', '.join(left_out)}")
        self._signature = Signature(
            tuple(_spec(argument, any_rank=True) for argument in (*session.get_inputs(), *optional)),
            tuple(_spec(argument) for argument in made),
            optional=frozenset(argument.name for argument in optional),
            left_out=tuple(left_out),
        )
        specs = (*self._signature.inputs, *self._signature.outputs)
        self._bfloat16 = any(spec.dtype == BFLOAT16 for spec in specs)
        self._strings = {spec.name for spec in self._signature.inputs if spec.dtype == BYTES}
        self._options = ort.RunOptions()
        # The error that a run raises says the same.
        self._options.log_severity_level = FATAL
        self.signatures = {DEFAULT_SIGNATURE: self._signature}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if self._session is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        if self._strings:
            inputs = inputs | {name: _text(name, inputs[name]) for name in self._strings & inputs.keys()}
        try:
            if self._bfloat16:  # Arrays of it are not taken: their bits go in and are read out.
                given = {name: _ort_value(array) for name, array in inputs.items()}
                answers = self._session.run_with_ort_values(list(outputs), given, self._options)
                values = [_array(value) for value in answers]
            else:
                values = self._session.run(list(outputs), inputs, self._options)
        except Exception as error:
            raise refusal("ONNX Runtime", self._signature, inputs, str(error).strip()) from error
        return dict(zip(outputs, values, strict=True))

    def close(self) -> None:
        self._session = None


def _spec(argument: ort.NodeArg, any_rank: bool = False) -> TensorSpec:
    """`any_rank`: where no dimension is declared, which may mean a scalar, or nothing."""
    if argument.type not in DTYPES:
        raise ArtifactError(f"input {argument.name} is of type {argument.type}, which is not served")
    # Symbolic dimensions come as names or None.
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(argument.name, DTYPES[argument.type], None if any_rank and not shape else shape)


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
            f"input {name!r}: expected text in UTF-8, got other bytes: {error}"
        ) from None
    return np.array(texts, object).reshape(array.shape)
