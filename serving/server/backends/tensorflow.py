"""SavedModels by TensorFlow, on the CPU: graphs in sessions, as TensorFlow Serving runs them.

A session's callable costs a tenth of what a restored function does, knows SavedModels of TensorFlow 1 as well as 2,
and gives everything back when it is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions

from serving.server.backends.base import shapes
from serving.server.errors import ArtifactError, BackendError, FailedPreconditionError, InvalidRequestError
from serving.server.tensors.signature import BYTES, Signature, Tensors, TensorSpec

SERVE = ("serve",)
"""The tags of the graph that a SavedModel has for serving."""

IN_CALLER_THREAD = -1

# Sessions are deprecated in Python, not in TensorFlow Serving: each load would say so.
tf.get_logger().setLevel("ERROR")


def load(
    directory: Path,
    file: str,  # noqa: ARG001 - one interface
    threads: int,
    inter_op_threads: int = 1,
    tags: Sequence[str] = SERVE,
) -> SavedModelServable:
    """Load the graph with `tags` of the SavedModel in `directory`; threads of 0: one for each core."""
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=inter_op_threads,
        use_per_session_threads=True,
    )
    session = tf.compat.v1.Session(graph=graph, config=config)
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, list(tags), str(directory))
        return SavedModelServable(session, dict(meta_graph.signature_def), inter_op_threads == 1)
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        session.close()
        raise ArtifactError(f"TensorFlow cannot load {directory}: {_first_line(error)}") from error


class SavedModelServable:
    """One graph in one session, and its signatures that take and give plain tensors."""

    def __init__(
        self, session: tf.compat.v1.Session, definitions: Mapping[str, Any], in_caller_thread: bool
    ) -> None:
        self.definitions = definitions
        """Every SignatureDef of the SavedModel, as it was saved."""
        self.signatures = {
            key: _signature(definition, session.graph)
            for key, definition in definitions.items()
            if _is_plain(definition)
        }
        self._session: tf.compat.v1.Session | None = session
        self._in_caller_thread = in_caller_thread
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = {}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `Servable.run`."""
        key = (signature, tuple(outputs))
        function = self._callables.get(key)
        if function is None:
            function = self._callables[key] = self._callable(*key)
        try:
            answer = function(*(inputs[spec.name] for spec in self.signatures[signature].inputs))
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            told = f"{_first_line(error)}; shapes sent: {shapes(inputs)}"
            raise InvalidRequestError(f"the model refused its input: {told}") from error
        except tf.errors.FailedPreconditionError as error:
            raise FailedPreconditionError(f"the model cannot run: {_first_line(error)}") from error
        except (tf.errors.OpError, RuntimeError) as error:
            raise BackendError(f"TensorFlow failed: {_first_line(error)}") from error
        return dict(zip(outputs, map(np.asarray, answer), strict=True))

    def close(self) -> None:
        """As `Servable.close`."""
        self._callables.clear()
        if self._session is not None:
            self._session.close()
            self._session = None

    def _callable(self, signature: str, outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        if self._session is None:
            raise BackendError(f"{signature} was called after its version was unloaded")
        definition = self.definitions[signature]
        options = CallableOptions()
        options.feed.extend(definition.inputs[spec.name].name for spec in self.signatures[signature].inputs)
        options.fetch.extend(definition.outputs[name].name for name in outputs)
        if self._in_caller_thread:
            options.run_options.inter_op_thread_pool = IN_CALLER_THREAD
        # Unlike `make_callable` it checks no shapes in Python, and costs nothing but the run.
        function: Callable[..., list[Any]] = self._session._make_callable_from_options(options)
        return function


def _is_plain(definition: Any) -> bool:  # noqa: ANN401 - a SignatureDef, whose package has no types
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)


def _signature(definition: Any, graph: tf.Graph) -> Signature:  # noqa: ANN401 - see above
    inputs = tuple(_spec(name, definition.inputs[name], graph) for name in sorted(definition.inputs))
    outputs = tuple(_spec(name, definition.outputs[name]) for name in sorted(definition.outputs))
    defaults = {name: np.asarray(tf.make_ndarray(value)) for name, value in definition.defaults.items()}
    return Signature(inputs, outputs, definition.method_name, defaults)


def _spec(name: str, info: Any, graph: tf.Graph | None = None) -> TensorSpec:  # noqa: ANN401 - a TensorInfo
    dtype = tf.as_dtype(info.dtype).base_dtype
    shape: tuple[int, ...] | None = tuple(dim.size for dim in info.tensor_shape.dim)
    # Whatever is no placeholder may be fed in any shape, and models rely on it: the x of half_plus_two.
    fed_inside = graph is not None and not graph.get_tensor_by_name(info.name).op.type.startswith(
        "Placeholder"
    )
    if info.tensor_shape.unknown_rank or fed_inside:
        shape = None
    return TensorSpec(name, BYTES if dtype == tf.string else np.dtype(dtype.as_numpy_dtype).name, shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines() if line.strip()]
    # "Graph execution error:" and traces of this process come first; what went wrong follows.
    noise = ("Graph execution error", "Detected at", "File ", "<stack traces unavailable>", "[[")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [type(error).__name__])[0]
