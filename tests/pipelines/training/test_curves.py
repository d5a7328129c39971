"""What TensorBoard reads of what a training draws."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from models.base import FRAMEWORKS, Model
from models.data import Rows
from pipelines.training import curves
from pipelines.training.curves import Curves
from pipelines.training.record import History, Trained


def read(folder: Path) -> EventAccumulator:
    """As TensorBoard reads it, but all events, not a sample of them."""
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def pictures(board: EventAccumulator, tag: str) -> list[Image.Image]:
    """The pictures of a tag; before each are its width and height."""
    events = [make_ndarray(event.tensor_proto).tolist() for event in board.Tensors(tag)]
    opened = [(*map(int, size), Image.open(io.BytesIO(content))) for *size, content in events]
    assert all(picture.size == (width, height) for width, height, picture in opened)
    return [picture for *_, picture in opened]


def steps(board: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in board.Tensors(tag)]


def test_what_is_drawn_twice_is_there_once(tmp_path: Path) -> None:
    first = Curves(tmp_path, 0)
    for step in range(14):
        first.scalars(step, {"loss": step})
    first.histograms(9, {"weights/a/kernel": np.ones(3)})
    resumed = Curves(tmp_path, 10)
    for step in range(10, 20):
        resumed.scalars(step, {"loss": step + 0.5})
    board = read(tmp_path)
    assert steps(board, "loss") == list(range(20))
    assert [float(make_ndarray(event.tensor_proto)) for event in board.Tensors("loss")][10] == 10.5
    assert steps(board, "weights/a/kernel") == [9]
    Curves(tmp_path, 0).scalars(0, {"loss": 1})
    assert steps(read(tmp_path), "loss") == [0]


def test_a_histogram_counts_each_finite_value(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.1], [3.0, np.inf], [np.nan, 3.0]], np.float32)
    Curves(tmp_path, 0).histograms(4, {"weights/a/kernel": values})
    (event,) = read(tmp_path).Tensors("weights/a/kernel")
    buckets = make_ndarray(event.tensor_proto)
    assert buckets[:, 2].sum() == 4
    assert (buckets[0, 0], buckets[-1, 1], buckets[-1, 2]) == (0, 3, 2)
    assert list(read(tmp_path).PluginTagToContent("histograms")) == ["weights/a/kernel"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_picture_input_and_classes_give_a_matrix_and_samples(
    framework: str, model: Model, sample: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(curves, "_matrix", lambda *own: counted.append(own) or matrix(*own))
    trained = Trained(framework, model.initial_weights(1), History.empty())
    curves.draw_answers(tmp_path, 7, model, trained, sample)
    board = read(tmp_path)
    assert board.PluginTagToContent("images").keys() == {"confusion_matrix", "samples"}
    for tag in board.PluginTagToContent("images"):
        (picture,) = pictures(board, tag)
        assert steps(board, tag) == [7]
        assert len(np.unique(np.asarray(picture)[..., 0])) > 30, "something is drawn"
    ((classes, targets, chosen),) = counted
    assert classes == model.spec.task.classes  # type: ignore[attr-defined]
    assert np.array_equal(targets, sample.targets)
    assert set(Counter(chosen)) <= set(range(10))


matrix = curves._matrix


def test_other_models_have_neither(model: Model, sample: Rows, tmp_path: Path) -> None:
    (image,) = model.spec.inputs
    spec = replace(
        model.spec, inputs=(replace(image, content="numbers"),), task=replace(model.spec.task, classes=())
    )
    trained = Trained("pytorch", {}, History.empty())
    curves.draw_answers(tmp_path, 7, replace(model, spec=spec), trained, sample)
    assert list(tmp_path.iterdir()) == []
