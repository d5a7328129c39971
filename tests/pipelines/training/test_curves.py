"""What TensorBoard reads of what a training draws."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from models.base import FRAMEWORKS, Model
from models.data import Rows
from models.regression import Regression
from pipelines.training import curves
from pipelines.training.curves import Curves
from pipelines.training.record import History, Trained


def read(folder: Path) -> EventAccumulator:
    """As TensorBoard reads it, but all events, not a sample of them."""
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def steps(board: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in board.Tensors(tag)]


def test_what_is_drawn_twice_is_there_once(tmp_path: Path) -> None:
    first = Curves(tmp_path, 0)
    for step in range(14):
        first.scalars(step, {"loss": step})
    Curves(tmp_path, 10).scalars(10, {"loss": 0.5})
    board = read(tmp_path)
    assert steps(board, "loss") == list(range(11))
    assert make_ndarray(board.Tensors("loss")[10].tensor_proto) == 0.5
    Curves(tmp_path, 0).scalars(0, {"loss": 1})
    assert steps(read(tmp_path), "loss") == [0]


def test_a_histogram_counts_each_finite_value(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.1], [3.0, np.inf], [np.nan, 3.0]], np.float32)
    Curves(tmp_path, 0).histograms(4, {"weights/a/kernel": values})
    board = read(tmp_path)
    assert list(board.PluginTagToContent("histograms")) == ["weights/a/kernel"]
    buckets = make_ndarray(board.Tensors("weights/a/kernel")[0].tensor_proto)
    assert buckets[:, 2].sum() == 4
    assert (buckets[0, 0], buckets[-1, 1], buckets[-1, 2]) == (0, 3, 2)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_classes_have_a_matrix_and_picture_inputs_samples(
    framework: str, model: Model, sample: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, drawn = [], curves._matrix
    monkeypatch.setattr(curves, "_matrix", lambda *own: counted.append(own) or drawn(*own))
    trained = Trained(framework, model.initial_weights(1), History([], [], 0.0))
    curves.draw(tmp_path, 7, model, trained, sample)
    board = read(tmp_path)
    names = " ".join(node.name for node in board.Graph().node)
    assert {"tensorflow": "/stem_conv", "pytorch": "Convolution[stem]/Conv2d[conv]/"}[framework] in names
    assert board.PluginTagToContent("images").keys() == {"confusion_matrix", "samples"}
    for tag in ("confusion_matrix", "samples"):
        (event,) = board.Tensors(tag)
        width, height, content = make_ndarray(event.tensor_proto).tolist()
        picture = Image.open(io.BytesIO(content))
        assert (*picture.size, event.step) == (int(width), int(height), 7)
        assert len(np.unique(np.asarray(picture)[..., 0])) > 30, "something is drawn"
    ((_, targets, chosen),) = counted
    assert np.array_equal(targets, sample.targets)
    assert 0 <= chosen.min() <= chosen.max() < 10

    spec = replace(
        model.spec, inputs=(replace(model.spec.inputs[0], content="numbers"),), task=Regression(("a",))
    )
    curves.draw(tmp_path / "other", 7, replace(model, spec=spec), trained, sample)
    assert read(tmp_path / "other").Tags()["tensors"] == []
