"""ONNX models by ONNX Runtime, on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serving.repository import GOLDEN, MANIFEST
from serving.server.backends.base import BACKENDS, check_exists, refusal
from serving.server.errors import ArtifactError, InvalidRequestError
from serving.server.tensors.signature import BYTES, DEFAULT_SIGNATURE, Array, Signature, Tensors, TensorSpec

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": BYTES,
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}

log = logging.getLogger("tandem.server")
_said: set[tuple[str, str]] = set()
"""Warnings logged so far: the model's version, and the place in ONNX Runtime's code."""


def _tell(_severity: int, _category: str, version: str, location: str, message: str) -> None:
    """Log a message of ONNX Runtime, once for each place in its code: some are repeated at every run."""
    if (version, location) not in _said:
        _said.add((version, location))
        log.warning("%s: ONNX Runtime: %s", version or "any model", message.strip())


# Replaces its coloured lines on stderr.
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
    # Spinning threads would take the cores from other requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Patterns are kept for every shape. Without them the arena stays near the size of the largest run; shrinking it
    # after each run, or malloc instead, costs up to twice the CPU and has higher peaks.
    options.enable_mem_pattern = False
    try:
        model, _weights = _in_memory(path, options)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {error}") from error
    return OnnxServable(session, version)


def _in_memory(path: Path, options: ort.SessionOptions) -> tuple[bytes | str, list[bytes]]:
    """Return the model to open, as bytes if it has files of weights, and their bytes, to be kept until it is open.

    ONNX Runtime maps such files, which may change, unless they are given as bytes. A session from bytes keeps
    these, so a model without such files is opened by its path.
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
    """An ONNX Runtime session with the signature `serving_default`."""

    def __init__(self, session: ort.InferenceSession, version: str) -> None:
        self._session = session
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
        self._strings = {spec.name for spec in self._signature.inputs if spec.dtype == BYTES}
        self._options = ort.RunOptions()
        self._options.log_severity_level = 4  # Fatal: errors of a run are raised as well.
        self.signatures = {DEFAULT_SIGNATURE: self._signature}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if self._strings:
            inputs = inputs | {name: _text(name, inputs[name]) for name in self._strings & inputs.keys()}
        try:
            values = self._session.run(list(outputs), inputs, self._options)
        except Exception as error:
            raise refusal("ONNX Runtime", self._signature, inputs, str(error).strip()) from error
        return dict(zip(outputs, values, strict=True))

    def close(self) -> None:
        del self._session


def _spec(argument: ort.NodeArg, any_rank: bool = False) -> TensorSpec:
    """`any_rank`: without declared dimensions the rank is unknown, not 0."""
    if argument.type not in DTYPES:
        raise ArtifactError(f"input {argument.name} is of type {argument.type}, which is not served")
    # Symbolic dimensions are names or None.
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(argument.name, DTYPES[argument.type], None if any_rank and not shape else shape)


def _text(name: str, array: Array) -> Array:
    try:
        texts = [value.decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"input {name!r}: expected text in UTF-8, got: {error}") from None
    return np.array(texts, object).reshape(array.shape)
