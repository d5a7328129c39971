"""SavedModels of TensorFlow 1 and 2 by TensorFlow, on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from serving.server.errors import ArtifactError, BackendError, FailedPreconditionError, InvalidRequestError
from serving.server.tensors.signature import BYTES, Signature, Tensors, TensorSpec, shapes

SERVE = ("serve",)
"""The default tags of the graph to serve."""

# Else it warns of TensorFlow 1 at each load.
tf.get_logger().setLevel("ERROR")
# Without the library's objects a collection in `close` takes 2 ms instead of 200.
gc.freeze()


def load(
    directory: Path,
    file: str,  # noqa: ARG001 - one interface
    threads: int,
    inter_op_threads: int = 1,
    tags: Sequence[str] = SERVE,
) -> SavedModelServable:
    """Load the graph with `tags` of the SavedModel in `directory`. The threads are those of the process."""
    with suppress(RuntimeError):  # Set by the first load.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)
    try:
        loaded = tf.saved_model.load(str(directory), list(tags))
        model = SavedModel.FromString((directory / "saved_model.pb").read_bytes())
        graph = next(graph for graph in model.meta_graphs if set(graph.meta_info_def.tags) == set(tags))
        return SavedModelServable(loaded, graph)
    except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
        raise ArtifactError(f"TensorFlow cannot load {directory}: {_first_line(error)}") from error


class SavedModelServable:
    """The signatures of a SavedModel whose inputs and outputs are plain tensors."""

    def __init__(self, loaded: Any, meta_graph: Any) -> None:  # noqa: ANN401 - without types
        self.definitions = dict(meta_graph.signature_def)
        """The SignatureDefs of the SavedModel."""
        operations = {node.name: node.op for node in meta_graph.graph_def.node}
        plain = {key: definition for key, definition in self.definitions.items() if _is_plain(definition)}
        self.signatures = {key: _signature(definition, operations) for key, definition in plain.items()}
        self._loaded = loaded  # Keeps its variables alive.
        self._functions = {key: _Function(loaded.signatures[key]) for key in plain}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        function = self._functions.get(signature)
        if function is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        try:
            arrays = (inputs[spec.name] for spec in self.signatures[signature].inputs)
            answer = function(*map(tf.constant, arrays))
            return {name: np.asarray(answer[name].numpy()) for name in outputs}
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            told = f"{_first_line(error)}; shapes sent: {shapes(inputs)}"
            raise InvalidRequestError(f"the model refused its input: {told}") from error
        except tf.errors.FailedPreconditionError as error:
            raise FailedPreconditionError(f"the model cannot run: {_first_line(error)}") from error
        except (tf.errors.OpError, RuntimeError) as error:
            raise BackendError(f"TensorFlow failed: {_first_line(error)}") from error

    def close(self) -> None:
        self._functions.clear()
        self._loaded = None
        gc.collect()  # Functions and their graphs refer to each other.


class _Function:
    """A signature's function, called as an operation: without Python's checks of shapes, at a third of the cost."""

    def __init__(self, function: Any) -> None:  # noqa: ANN401 - a ConcreteFunction
        self._function = function
        self._captured = list(function.captured_inputs)
        self._dtypes = [output.dtype for output in function.outputs]
        self._names = sorted(function.structured_outputs)

    def __call__(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Inputs and outputs are ordered by name."""
        values = tf.raw_ops.StatefulPartitionedCall(
            args=[*inputs, *self._captured], Tout=self._dtypes, f=self._function
        )
        return dict(zip(self._names, values, strict=True))


def _is_plain(definition: Any) -> bool:  # noqa: ANN401 - a SignatureDef, whose package has no types
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)


def _signature(definition: Any, operations: Mapping[str, str]) -> Signature:  # noqa: ANN401 - see above
    inputs = tuple(_spec(name, definition.inputs[name], operations) for name in sorted(definition.inputs))
    outputs = tuple(_spec(name, definition.outputs[name]) for name in sorted(definition.outputs))
    defaults = {name: np.asarray(tf.make_ndarray(value)) for name, value in definition.defaults.items()}
    return Signature(inputs, outputs, definition.method_name, defaults)


def _spec(name: str, info: Any, operations: Mapping[str, str] | None = None) -> TensorSpec:  # noqa: ANN401 - a TensorInfo
    dtype = tf.as_dtype(info.dtype).base_dtype
    shape: tuple[int, ...] | None = tuple(dim.size for dim in info.tensor_shape.dim)
    # Other operations than placeholders accept any shape, as the x of half_plus_two does.
    operation = operations[info.name.split(":")[0]] if operations is not None else "Placeholder"
    fed_inside = not operation.startswith("Placeholder")
    if info.tensor_shape.unknown_rank or fed_inside:
        shape = None
    return TensorSpec(name, BYTES if dtype == tf.string else np.dtype(dtype.as_numpy_dtype).name, shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines() if line.strip()]
    # "Graph execution error:" and traces come first, then the cause.
    noise = ("Graph execution error", "Detected at", "File ", "<stack traces unavailable>", "[[")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [type(error).__name__])[0]
