from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.base import Model
from models.classification import Classification
from models.data import Dataset, Rows
from models.regression import Regression
from pipelines import gates, training
from pipelines.gates import Check, GateError, artifacts, networks
from pipelines.training.record import History, Trained


def failing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_refusal_tells_check_figure_and_limit() -> None:
    with pytest.raises(GateError, match=r"FAIL quality: test accuracy 0\.5 \(limit >= 0\.9\)"):
        gates.require([Check("quality", "test accuracy", 0.5, ">=", 0.9)])
    gates.require([Check("quality", "test accuracy", 0.9, ">=", 0.9)])


def test_a_figure_at_its_limit_passes_however_it_is_rounded() -> None:
    assert 0.92 - 0.91 > 0.01
    assert Check("quality", "x", 0.92 - 0.91, "<=", 0.01).passed
    assert Check("quality", "x", 0.89, ">=", 0.9 - 0.01).passed
    assert not Check("quality", "x", 0.010001, "<=", 0.01).passed


def test_nan_never_passes() -> None:
    assert not Check("parity", "x", math.nan, "<=", 1.0).passed
    assert not Check("parity", "x", math.nan, ">=", 0.0).passed


def test_accuracy_is_told_overall_and_by_class() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    found = Classification(("a", "b", "c")).metrics(logits, np.array([0, 1, 2, 1]))
    f1 = found.pop("macro_f1")
    assert found == {"accuracy": 0.75, "accuracy/a": 1.0, "accuracy/b": 0.5, "accuracy/c": 1.0}
    # Precision and recall by hand: 1 and 1, 1 and 1/2, 1/2 and 1.
    assert f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_a_regression_is_told_by_r2_and_errors() -> None:
    targets = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    off = targets + np.array([[0, 1], [0, -1], [0, 1]])
    found = Regression(("a", "b")).metrics(off, targets)
    assert found["mse"] == found["mae"] == 0.5
    assert (found["r2/a"], found["r2/b"]) == (1, pytest.approx(1 - 3 / 26))
    assert found["r2"] == pytest.approx((found["r2/a"] + found["r2/b"]) / 2)


def test_quality_needs_accuracy_in_both_and_near_each_other(model: Model) -> None:
    profile = replace(model.spec.profile("quick"), minimum_score=0.9)
    good = {"tensorflow": {"accuracy": 0.915}, "pytorch": {"accuracy": 0.913}}
    assert failing(networks.quality(model.spec, profile, good, {})) == []
    poor = good | {"pytorch": {"accuracy": 0.885}}
    assert failing(networks.quality(model.spec, profile, poor, {})) == [
        "pytorch: test accuracy",
        "test accuracy, between frameworks",
    ]


def test_quality_refuses_what_lost_one_class_only(model: Model) -> None:
    profile = replace(model.spec.profile("quick"), minimum_score=0.9)
    published = {"tensorflow": {"accuracy": 0.92, "accuracy/Bag": 0.98}}
    now = {"tensorflow": {"accuracy": 0.915, "accuracy/Bag": 0.80}}
    assert failing(networks.quality(model.spec, profile, now, published)) == [
        "tensorflow: accuracy/Bag against the published version"
    ]


def test_training_parity(model: Model) -> None:
    profile = model.spec.profile("quick")
    one = History([1.0, 0.5], [], 0)
    assert failing(networks.training(profile, one, History([1.0005, 0.5], [], 0))) == []
    assert len(failing(networks.training(profile, one, History([1.01, 0.5], [], 0)))) == 1
    assert len(failing(networks.training(profile, one, History([], [], 0.0)))) == 1, (
        "nothing compared is no parity"
    )


def outputs(logits: np.ndarray) -> dict[str, np.ndarray]:
    odds = np.exp(logits)
    return {"logits": logits, "probabilities": odds / odds.sum(axis=1, keepdims=True)}


def test_parity_of_float32_is_by_logits(model: Model) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    labels = logits.argmax(1).astype(np.uint8)
    close, far = logits.copy(), logits.copy()
    close[3, 4] += 5e-6
    far[3, 4] += 5e-5
    assert (
        failing(artifacts.parity(model.spec, "x", "float32", outputs(close), outputs(logits), labels)) == []
    )
    assert failing(artifacts.parity(model.spec, "x", "float32", outputs(far), outputs(logits), labels)) == [
        "x: largest difference of logits"
    ]


def test_parity_sees_swapped_outputs(model: Model) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    right = outputs(logits)
    swapped = {"logits": right["probabilities"], "probabilities": right["logits"]}
    failures = failing(artifacts.parity(model.spec, "x", "float32", swapped, right, logits.argmax(1)))
    assert len(failures) == 3


def test_parity_of_int8_is_by_classes(model: Model) -> None:
    logits = 5 * np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    labels = logits.argmax(1).astype(np.uint8)
    off = logits.copy()
    off[:5] = np.roll(off[:5], 1, axis=1)
    assert (
        failing(artifacts.parity(model.spec, "x", "int8", outputs(logits * 0.9), outputs(logits), labels))
        == []
    )
    assert failing(artifacts.parity(model.spec, "x", "int8", outputs(off), outputs(logits), labels)) == [
        "x: same answer",
        "x: lost accuracy",
    ]


def test_an_artifact_that_cannot_be_batched_is_noted_and_refused_only_where_it_must_be(model: Model) -> None:
    assert artifacts.batching(model.spec, "x", 1e-6, "").passed
    assert artifacts.batching(model.spec, "x", 1e-6, "always").passed
    for difference in (1e-3, math.inf, math.nan):
        noted = artifacts.batching(model.spec, "x", difference, "")
        gates.require([noted])
        assert not noted.passed
        assert re.match(
            r"note batching: x: .*\(limit <= 1e-05\): published with `batched: false`", str(noted)
        )
        with pytest.raises(GateError, match=r"FAIL batching: x: .*company \(its servers do\)"):
            gates.require([artifacts.batching(model.spec, "x", difference, "its servers do")])


def test_size_sees_a_file_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(31_000))
    assert len(failing(artifacts.size("litert", "float32", path, 79_000))) == 1
    path.write_bytes(bytes(320_000))
    assert failing(artifacts.size("litert", "float32", path, 79_000)) == []
    (tmp_path / "more").write_bytes(bytes(3_000_000))
    assert len(failing(artifacts.size("tf-serving", "float32", tmp_path, 79_000))) == 1


def test_a_training_that_was_changed_is_refused(model: Model, sample: Rows, tmp_path: Path) -> None:
    weights = {"classifier/bias": np.zeros(10, np.float32)}
    Trained("pytorch", weights, History([], [], 0.0)).write(tmp_path / "pytorch")
    np.savez(tmp_path / "pytorch" / "weights.npz", **{"classifier/bias": weights["classifier/bias"] + 1})
    task = model, model.spec.profile("smoke"), 1, Dataset(sample, sample, sample, ""), tmp_path
    with pytest.raises(
        GateError, match=r"pytorch: trainings in .* that were changed since they ended 1 \(limit"
    ):
        training.train("pytorch", *task)
