"""What TensorBoard shows of a training: by one writer, with the same tags, whichever framework trains."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Mapping
from itertools import islice
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

from models.base import Model
from models.classification import Classification
from models.data import Rows
from models.signature import Arrays
from pipelines.exporting import reference
from pipelines.training.record import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUCKETS = 30
ROWS = 2_000
"""Most validation rows that a confusion matrix counts."""
PICTURES = 16
NAMED = 30
"""Most classes whose names and counts can be read in a confusion matrix."""


class Curves:
    """A file of events in `folder`, of a training that goes on at `first_step`; 0 begins anew.

    TensorBoard forgets what an interrupted training drew from that step on.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        if not first_step:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """A point of each curve."""
        self._summarize(step, [scalar_pb(tag, value).value[0] for tag, value in figures.items()])

    def histograms(self, step: int, arrays: Arrays) -> None:
        """How the finite values of each array are distributed."""
        made = []
        for tag, array in arrays.items():
            counts, edges = np.histogram(array[np.isfinite(array)], BUCKETS)
            buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
            metadata = create_summary_metadata(display_name=None, description=None)
            made.append(Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(buckets)))
        self._summarize(step, made)

    def graph(self, definition: bytes) -> None:
        """A serialized TensorFlow GraphDef."""
        self._write(graph_def=definition)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Matplotlib's figure, as a picture."""
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        width, height = figure.canvas.get_width_height()
        drawn = Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=stream.getvalue()
        )
        self._summarize(step, [Summary.Value(tag=tag, image=drawn)])

    def _summarize(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:  # noqa: ANN401
        with self._path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **fields).SerializeToString())


def draw_answers(logs: Path, step: int, model: Model, trained: Trained, validation: Rows) -> None:
    """Draw a classification's confusion matrix, and some pictures with what the trained network answers."""
    spec, rows = model.spec, validation.take(slice(ROWS))
    picture = spec.signature.picture
    classes = spec.task.classes if isinstance(spec.task, Classification) else ()
    if not picture and not classes:
        return
    inputs, curves = rows.served(spec.signature), Curves(logs, step)
    outputs = reference.outputs(model, trained.framework, trained.weights, inputs)
    if classes:
        chosen = outputs[spec.task.outputs[0].name].argmax(axis=1)
        curves.figure(step, "confusion_matrix", _matrix(classes, rows.targets, chosen))
    if picture:
        calls = ({name: array[row : row + 1] for name, array in outputs.items()} for row in range(len(rows)))
        told = [" ".join(spec.task.told(own).split()) for own in islice(calls, PICTURES)]
        if classes:
            told = [f"{own}\nis {classes[right]}" for own, right in zip(told, rows.targets, strict=False)]
        curves.figure(step, "samples", _pictures(inputs[picture.name], told))


def _matrix(classes: tuple[str, ...], targets: NDArray[Any], chosen: NDArray[Any]) -> Figure:
    from matplotlib.figure import Figure

    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (targets, chosen), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="right", title=f"{len(targets):,} validation rows")
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if count > counts[row].sum() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=shade)
    return figure


def _pictures(pictures: NDArray[Any], told: list[str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    for axes, values, text in zip(figure.subplots(4, PICTURES // 4).flat, pictures, told, strict=False):
        axes.imshow(values, cmap="gray", vmin=0, vmax=1)
        axes.set_title(text, fontsize=8)
        axes.set_axis_off()
    return figure
