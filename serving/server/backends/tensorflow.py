"""SavedModels of TensorFlow 1 and 2 by TensorFlow, on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from serving.server.errors import ArtifactError, BackendError, FailedPreconditionError, InvalidRequestError
from serving.server.tensors.signature import BYTES, Signature, Tensors, TensorSpec, shapes

# Else it warns of TensorFlow 1 at each load.
tf.get_logger().setLevel("ERROR")
# Without the library's objects a collection in `close` takes 2 ms instead of 200.
gc.freeze()


def load(directory: Path, _file: str, threads: int, inter_op_threads: int = 1) -> SavedModelServable:
    """Load the graph of the SavedModel in `directory` that is tagged "serve". The threads are those of the process."""
    with suppress(RuntimeError):  # Set by the first load.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)
    try:
        graphs = SavedModel.FromString((directory / "saved_model.pb").read_bytes()).meta_graphs
        serving = [graph for graph in graphs if "serve" in graph.meta_info_def.tags]
        if not serving:
            raise ValueError('expected a graph with the tag "serve", got none')
        graph = min(serving, key=lambda graph: len(graph.meta_info_def.tags))  # Others are for accelerators.
        loaded = tf.saved_model.load(str(directory), list(graph.meta_info_def.tags))
        return SavedModelServable(loaded, graph)
    except (OSError, ValueError, LookupError, RuntimeError, DecodeError, tf.errors.OpError) as error:
        raise ArtifactError(f"TensorFlow cannot load {directory}: {_first_line(error)}") from error


class SavedModelServable:
    """The signatures of a SavedModel whose inputs and outputs are plain tensors."""

    def __init__(self, loaded: Any, meta_graph: Any) -> None:  # noqa: ANN401 - without types
        self.definitions = dict(meta_graph.signature_def)
        """The SignatureDefs of the SavedModel."""
        operations = {node.name: node.op for node in meta_graph.graph_def.node}
        plain = {key: definition for key, definition in self.definitions.items() if _is_plain(definition)}
        self.signatures = {key: _signature(definition, operations) for key, definition in plain.items()}
        self._defaults = {
            key: {name: tf.make_ndarray(value) for name, value in definition.defaults.items()}
            for key, definition in plain.items()
        }
        self._loaded = loaded  # Keeps its variables alive.
        self._functions = {key: _operation(loaded.signatures[key]) for key in plain}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        inputs = self._defaults[signature] | inputs
        try:
            tensors = (tf.constant(inputs[spec.name]) for spec in self.signatures[signature].inputs)
            answer = self._functions[signature](*tensors)
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


def _operation(function: Any) -> Callable[..., dict[str, tf.Tensor]]:  # noqa: ANN401 - a ConcreteFunction
    """Return a signature's function as an operation: without Python's checks of shapes, at a third of the cost.

    Inputs and outputs are ordered by name.
    """
    captured = list(function.captured_inputs)
    dtypes = [output.dtype for output in function.outputs]
    names = sorted(function.structured_outputs)

    def call(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.raw_ops.StatefulPartitionedCall(args=[*inputs, *captured], Tout=dtypes, f=function)
        return dict(zip(names, values, strict=True))

    return call


def _is_plain(definition: Any) -> bool:  # noqa: ANN401 - a SignatureDef, whose package has no types
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)


def _signature(definition: Any, operations: Mapping[str, str]) -> Signature:  # noqa: ANN401 - see above
    inputs = []
    for name, info in sorted(definition.inputs.items()):
        # Other operations than placeholders accept any shape, as the x of half_plus_two does.
        placeholder = operations[info.name.split(":")[0]].startswith("Placeholder")
        spec = _spec(name, info)
        inputs.append(spec if placeholder else replace(spec, shape=None))
    outputs = tuple(_spec(name, info) for name, info in sorted(definition.outputs.items()))
    return Signature(tuple(inputs), outputs, frozenset(definition.defaults))


def _spec(name: str, info: Any) -> TensorSpec:  # noqa: ANN401 - a TensorInfo
    dtype = tf.as_dtype(info.dtype).base_dtype
    kind = BYTES if dtype == tf.string else np.dtype(dtype.as_numpy_dtype).name
    sizes = tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, kind, None if info.tensor_shape.unknown_rank else sizes)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines() if line.strip()]
    # "Graph execution error:" and traces come first, then the cause.
    noise = ("Graph execution error", "Detected at", "File ", "<stack traces unavailable>", "[[")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [type(error).__name__])[0]
