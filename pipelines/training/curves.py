"""The events of a training for TensorBoard: by one writer, with the same tags, whichever framework trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from models.base import FRAMEWORKS, Model
from models.classification import Classification
from models.data import Rows
from models.signature import Arrays
from pipelines.exporting import reference
from pipelines.exporting.base import one_line, quiet
from pipelines.training.record import Trained
from serving import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUCKETS = 30
ROWS = 2_000
"""Most validation rows that a confusion matrix counts."""
NAMED = 30
"""Most classes whose names and counts can be read in it."""


class Curves:
    """A file of events in `folder`, of a training that goes on at `first_step`; 0 begins anew.

    TensorBoard forgets what was drawn from that step on before.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        if not first_step:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self.write(file_version="brain.Event:2")
        self.write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, **fields: Any) -> None:  # noqa: ANN401
        """Append an event of these fields."""
        with self._path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **fields).SerializeToString())

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """A point of each curve."""
        made = [scalar_pb(tag, value).value[0] for tag, value in figures.items()]
        self.write(step=step, summary=Summary(value=made))

    def histograms(self, step: int, arrays: Arrays) -> None:
        """The distribution of each array's finite values."""
        made, metadata = [], create_summary_metadata(display_name=None, description=None)
        for tag, array in arrays.items():
            counts, edges = np.histogram(array[np.isfinite(array)], BUCKETS)
            buckets = make_tensor_proto(np.stack([edges[:-1], edges[1:], counts], axis=1))
            made.append(Summary.Value(tag=tag, metadata=metadata, tensor=buckets))
        self.write(step=step, summary=Summary(value=made))


def draw(logs: Path, step: int, model: Model, trained: Trained, validation: Rows) -> None:
    """Draw the network's graph, a classification's confusion matrix, and some of the pictures that are its input.

    By PyTorch's writer of events, which imports TensorFlow: not in the processes that train.
    """
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

    spec, rows, told = model.spec, validation.take(slice(ROWS)), [""] * ROWS
    inputs = rows.served(spec.signature)
    writer: Any
    with SummaryWriter(str(logs)) as writer:
        if trained.framework in FRAMEWORKS:
            _draw_graph(writer, model, trained)
            if isinstance(spec.task, Classification):
                names = spec.task.classes
                outputs = reference.outputs(model, trained.framework, trained.weights, inputs)
                chosen = outputs[spec.task.outputs[0].name].argmax(axis=1)
                writer.add_figure("confusion_matrix", _matrix(names, rows.targets, chosen), step)
                told = [f"{names[a]}, is {names[b]}" for a, b in zip(chosen, rows.targets, strict=True)]
        if picture := spec.signature.picture:
            figure = Figure(figsize=(10, 8), layout="constrained")
            for axes, values, title in zip(
                figure.subplots(4, 4).flat, inputs[picture.name], told, strict=False
            ):
                axes.imshow(values, cmap="gray", vmin=0, vmax=1)
                axes.set_title(title, fontsize=8)
                axes.set_axis_off()
            writer.add_figure("samples", figure, step)


def _draw_graph(writer: Any, model: Model, trained: Trained) -> None:  # noqa: ANN401
    try:
        with quiet():
            if trained.framework == "pytorch":
                from pipelines.exporting import torch_graph

                network = torch_graph.servable(model, trained.weights)
                writer.add_graph(network, torch_graph.example(model))
                return
            import tensorflow as tf

            from pipelines.exporting import keras_graph

            answer = tf.function(keras_graph.answering(model, keras_graph.network(model, trained.weights)))
            graph = answer.get_concrete_function(*keras_graph.tensor_specs(model.spec.signature)).graph
            with tf.summary.create_file_writer(writer.log_dir).as_default():
                tf.summary.graph(graph)
    except Exception as error:  # noqa: BLE001 - the network's own code runs here, and has no need of a graph.
        progress.note(f"TensorBoard has no graph of {trained.framework}'s network: {one_line(error)}")


def _matrix(names: tuple[str, ...], targets: NDArray[Any], chosen: NDArray[Any]) -> Figure:
    from matplotlib.figure import Figure

    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (targets, chosen), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=2)
    axes.set(xlabel="answered", ylabel="right", title=f"{len(targets):,} validation rows")
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7)
    return figure
