"""The road to each target from a model's networks or file, or the reason why there is none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from models.artifact import FORMATS, Artifact
from models.base import Model, load
from models.signature import Signature, Tensor
from pipelines.exporting import onnx, reference, roads
from pipelines.exporting.base import ExportError, one_line
from serving import targets

TWO = ("tf-serving", "litert", "tfjs")


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Model]:
    """`fashion` with one of its networks, by the framework that is left."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    found = {}
    for framework, gone in (("tensorflow", "torch_model.py"), ("pytorch", "keras_model.py")):
        name = f"only_{framework}"
        shutil.copytree(load("fashion").folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / name / gone).unlink()
        found[framework] = load(name)
    return found


def test_two_frameworks_reach_all_and_need_no_converter() -> None:
    found = roads.find(load("fashion"))
    assert set(found.origins) == set(targets.NAMES)
    assert not any(road.converter for road in found.open.values())
    assert found.origins["torchserve"] == "pytorch"
    assert set(roads.find(load("fashion"), "tensorflow").origins.values()) == {"tensorflow"}


def test_one_framework_reaches_the_others_targets_by_a_converter(copies: dict[str, Model]) -> None:
    keras, torch = (roads.find(copies[name]) for name in ("tensorflow", "pytorch"))
    assert {name: road.converter for name, road in keras.open.items()} == {
        **dict.fromkeys(TWO, ""),
        **dict.fromkeys(("torchserve", "onnxruntime"), "tf2onnx"),
    }
    assert keras.form == "onnx"
    assert {name: road.converter for name, road in torch.open.items()} == {
        **dict.fromkeys(TWO, "onnx2tf"),
        **dict.fromkeys(("torchserve", "onnxruntime"), ""),
    }
    assert torch.form == "exported"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_file_reaches_what_runs_it(kind: str) -> None:
    fashion = load("fashion")
    model = replace(fashion, spec=replace(fashion.spec, artifact=Artifact("file", kind, "digest")))
    found = roads.find(model)
    native = roads.NATIVE[kind]
    assert found.open[native].converter == ""
    assert not roads.optional(model, native)
    assert set(found.closed) == ({"tf-serving", "tfjs"} if kind == "tflite" else set())


@pytest.mark.parametrize(
    ("tensor", "closed"),
    [
        (Tensor("x", "int64", ("batch", 2)), {"tfjs"}),
        (Tensor("x", "float32", (2,)), {"tfjs"}),
        (Tensor("x", "float32", ("batch", "length")), {"tfjs"}),
        (Tensor("x", "bytes", ("batch",)), {"tfjs", "litert", "torchserve"}),
    ],
)
def test_a_target_that_cannot_take_a_signature_says_why(tensor: Tensor, closed: set[str]) -> None:
    signature = Signature((tensor,), (Tensor("y", "float32", tensor.shape[:1] if tensor.batched else ()),))
    assert {name for name in targets.NAMES if "x" in roads.unable(name, signature)} | {
        name for name in targets.NAMES if "not batched" in roads.unable(name, signature)
    } == closed


def test_targets_that_are_not_wanted_are_left_out_and_unknown_ones_refused() -> None:
    found = roads.find(load("fashion"), wanted=("litert",))
    assert set(found.open) == {"litert"}
    assert "TANDEM_TARGETS" in found.closed["tfjs"]
    with pytest.raises(ExportError, match="there is no target 'redis'"):
        roads.find(load("fashion"), wanted=("redis",))


def test_a_reason_is_never_empty_which_would_mean_that_the_target_is_reached() -> None:
    assert one_line(ValueError("no such\n  operation")) == "no such operation"
    assert one_line(NotImplementedError()) == "NotImplementedError"


@pytest.mark.slow
def test_onnx_of_a_network_in_keras_only_answers_as_keras_does(
    copies: dict[str, Model], tmp_path: Path
) -> None:
    model = copies["tensorflow"]
    weights = model.initial_weights(1)
    onnx.EXPORTER.write(model, weights, tmp_path, {})
    inputs = {"image": np.random.default_rng(0).random((100, 28, 28, 1), np.float32)}
    found = onnx.EXPORTER.run(tmp_path / onnx.EXPORTER.serve, model, inputs)
    expected = reference.outputs(model, "tensorflow", weights, inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


def test_weights_of_one_framework_come_back_as_they_were(copies: dict[str, Model]) -> None:
    model = copies["pytorch"]
    weights, again = model.initial_weights(1), model.build_torch()
    model.to_torch(weights, again)
    assert all(np.array_equal(weights[name], array) for name, array in model.from_torch(again).items())
    assert all(np.array_equal(array, model.initial_weights(1)[name]) for name, array in weights.items())
