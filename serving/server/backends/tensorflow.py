"""SavedModels by TensorFlow, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.errors import ArtifactError, BackendError, InvalidRequestError
from serving.server.signature import BYTES, Signature, Tensors, TensorSpec


def load(directory: Path, file: str, threads: int) -> SavedModelServable:  # noqa: ARG001 - one interface
    """Load the SavedModel in `directory`; its intra-op threads are those of the first model loaded."""
    _set_threads(threads)
    try:
        model = tf.saved_model.load(str(directory), tags=["serve"])
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ArtifactError(f"TensorFlow cannot load {directory}: {error}") from error
    return SavedModelServable(model)


class SavedModelServable:
    """The concrete functions of one SavedModel, by signature."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - TensorFlow gives it no type
        self._model = model
        self._functions: dict[str, Any] = dict(model.signatures)
        self.signatures = {
            key: Signature(
                _specs(function.structured_input_signature[1]), _specs(function.structured_outputs)
            )
            for key, function in self._functions.items()
        }

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
        function = self._functions[signature]
        try:
            answer = function(**{name: tf.constant(array) for name, array in inputs.items()})
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise InvalidRequestError(f"the model refused its input: {_first_line(error)}") from error
        except tf.errors.OpError as error:
            raise BackendError(f"TensorFlow failed: {_first_line(error)}") from error
        return {name: answer[name].numpy() for name in outputs}

    def close(self) -> None:
        """As `Servable.close`."""
        self._functions.clear()
        self._model = None


def _specs(tensors: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for name, tensor in sorted(tensors.items()):
        dtype = BYTES if tensor.dtype == tf.string else np.dtype(tensor.dtype.as_numpy_dtype).name
        rank = tensor.shape.rank
        shape = None if rank is None else tuple(-1 if size is None else int(size) for size in tensor.shape)
        specs.append(TensorSpec(name, dtype, shape))
    return tuple(specs)


def _first_line(error: tf.errors.OpError) -> str:
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    # "Graph execution error:" and traces of this process come first; what went wrong follows.
    noise = ("Graph execution error", "Detected at", "File ", "<stack traces unavailable>")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [type(error).__name__])[0]


def _set_threads(threads: int) -> None:
    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(1, threads))
    except RuntimeError:
        return  # A model of this process has already run: the threads stay as they are.
