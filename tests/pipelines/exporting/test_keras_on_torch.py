from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models.base
from models.base import ModelError
from models.twins import drawn
from pipelines import exporting
from pipelines.exporting import conformance, reference
from pipelines.training.keras_on_torch import NAME
from tests.pipelines.exporting.conftest import Answers, Made

pytestmark = pytest.mark.timeout(600)
TARGETS = ["onnxruntime", pytest.param("torchserve", marks=pytest.mark.thorough)]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_it_answers_as_keras_on_tensorflow(answers_as_keras: Answers, made: Made, target: str) -> None:
    exporter = exporting.load(target, NAME)
    answers_as_keras(exporter, made(target, NAME) / exporter.serve, 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("target", ["onnxruntime", "torchserve"])
def test_a_network_of_texts_does_too(target: str, tmp_path: Path) -> None:
    language = models.base.load("language")
    weights, exporter = drawn(language.initial_weights(1)), exporting.load(target, NAME)
    text = np.random.default_rng(1).integers(0, 256, (64, 48)).astype(np.int32)
    runs = conformance.batches({"text": text})
    exporter.write(language, weights, tmp_path, {})
    expected = reference.answers(language, "tensorflow", weights, runs)
    for left, right in zip(exporter.answer(tmp_path / exporter.serve, language, runs), expected, strict=True):
        np.testing.assert_allclose(left["logits"], right["logits"], rtol=0, atol=1e-5)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    model = models.base.load("fashion")
    several = replace(model, spec=replace(model.spec, inputs=model.spec.inputs * 2))
    with pytest.raises(ModelError, match="takes all inputs of fashion as one list"):
        exporting.load("onnxruntime", NAME).write(several, {}, tmp_path, {})
