"""A model that cannot be right is refused before its training, with what was expected and what came."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import models
import models.base
from models import twins
from models.base import ModelError
from models.data import Rows

NAME = "liar"
SAMPLE = Rows({"image": np.zeros((8, 28, 28, 1), np.uint8)}, np.zeros(8, np.int64))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model of the user's own, a copy of fashion's."""
    shutil.copytree(models.base.load("fashion").folder, tmp_path / NAME)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    # A module of the same size and second would come from the cache of the case before.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / NAME


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '("batch", 28, 28, 1)',
            '("batch", 28, 28)',
            r"image: a picture is float32 \['batch', height, width",
        ),
        ('"float32"', '"float64"', "image: expected the dtype float32 or int32, it is 'float64'"),
        (
            '("batch", 28',
            "(28",
            r"image: expected a shape \('batch', then sizes; .*it is \(28,",
        ),
        ('Tensor("image"', 'Tensor("logits"', "no name twice among inputs and outputs"),
        ("SPEC = ModelSpec(", "SPEC = dict(", "expected SPEC to be a ModelSpec, it is dict"),
        (
            '"picture"),),',
            '"picture")),',
            r"expected inputs=\(Tensor\(...\),\), with a comma",
        ),
        (
            "    task=",
            '    precisions=("fp16",),\n    task=',
            r"expected the precisions float32, .*fp16",
        ),
        (
            "MEAN, STD = ",
            "MEAN, STD = nothing, ",
            "spec.py cannot be read: line 8: NameError: name 'nothing'",
        ),
    ],
)
def test_a_spec_that_lies_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    spec = (folder / "spec.py").read_text()
    assert old in spec
    (folder / "spec.py").write_text(spec.replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        models.base.load(NAME)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("torch_model.py", "def build(", "def build(:", r"torch_model\.py cannot be built: SyntaxError"),
        (
            "keras_model.py",
            "layers.ReLU(",
            "layers.Relu(",
            r"keras_model\.py cannot be built: line \d+: AttributeError",
        ),
        (
            "torch_model.py",
            "eps=NORM_EPSILON, ",
            "",
            r"blocks_0_first_norm: epsilon is 0\.001 in Keras, 1e-05 in PyTorch",
        ),
        (
            "torch_model.py",
            "self.second = Convolution(width, width)",
            "self.next = Convolution(width, width)\n        self.second = self.next",
            "blocks_0_next_conv is in PyTorch only",
        ),
        (
            "keras_model.py",
            "Dense(spec.task.outputs[0].row[0]",
            "Dense(9",
            r"classifier: bias \[9\].* in Keras, bias \[10\]",
        ),
        (
            "torch_model.py",
            "return torch.relu(x + shortcut)",
            "return torch.sigmoid(x + shortcut)",
            "have the same weights and answer differently, by up to",
        ),
        (
            "torch_model.py",
            "x.mean(dim=(2, 3))",
            "x.mean(dim=3)",
            r"torch_model\.py fails on the inputs of spec\.py: RuntimeError",
        ),
        (
            "keras_model.py",
            "name=tensor.name",
            'name="photo"',
            r"expected the inputs, in this order, image float32 \[28, 28, 1\]; it has photo",
        ),
    ],
)
def test_networks_that_are_not_one_are_refused(
    folder: Path, file: str, old: str, new: str | None, message: str
) -> None:
    path = folder / file
    if new is None:
        path.unlink()
    else:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        twins.check(models.base.load(NAME), SAMPLE)


def test_a_folder_without_a_network_is_refused(folder: Path) -> None:
    for file in ("torch_model.py", "keras_model.py"):
        (folder / file).unlink()
    with pytest.raises(
        ModelError, match=r"has neither keras_model.py nor torch_model.py: expected a function build"
    ):
        models.base.load(NAME)


def test_two_rows_are_enough(folder: Path) -> None:
    twins.check(models.base.load(NAME), SAMPLE.take(slice(2)))


def test_both_wrong_in_the_same_way_is_told_against_the_spec(folder: Path) -> None:
    for file in ("keras_model.py", "torch_model.py"):
        path = folder / file
        path.write_text(path.read_text().replace("spec.task.outputs[0].row[0]", "9"))
    with pytest.raises(
        ModelError, match=r"expected logits float32 \[4, 10\] for 4 rows.*gives float32 \[4, 9\]"
    ):
        twins.check(models.base.load(NAME), SAMPLE)
