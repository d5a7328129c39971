from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, Weights
from models.data import Rows
from models.twins import drawn
from pipelines import exporting
from pipelines.exporting import conformance, keras_graph
from pipelines.exporting.base import Exporter
from tests.pictures import Images, as_floats

Made = Callable[..., Path]
Answers = Callable[[Exporter, Path, float], None]


@pytest.fixture(scope="session")
def weights(model: Model) -> Weights:
    return drawn(model.initial_weights(1))


@pytest.fixture(scope="session")
def pictures(sample: Rows) -> Images:
    return as_floats(sample)


@pytest.fixture(scope="session")
def made(model: Model, weights: Weights, pictures: Images, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder with the artifact of a target, and of a form of it, which is exported once."""

    @functools.cache
    def make(target: str, form: str = "") -> Path:
        folder = tmp_path_factory.mktemp(target)
        exporting.load(target, form).write(model, weights, folder, {"image": pictures})
        return folder

    return make


@pytest.fixture(scope="session")
def answers_as_keras(model: Model, weights: Weights, pictures: Images) -> Answers:
    """Assert any number of rows within a tolerance of Keras's logits, and each row alike alone and in company."""
    expected = keras_graph.network(model, weights)(pictures).numpy()

    def check(exporter: Exporter, path: Path, tolerance: float) -> None:
        counts = (1, 3, len(pictures))
        answers = exporter.answer(path, model, [{"image": pictures[:count]} for count in counts])
        for count, outputs in zip(counts, answers, strict=True):
            np.testing.assert_allclose(outputs["logits"], expected[:count], atol=tolerance, rtol=0)
            odds = np.exp(outputs["logits"])
            probabilities = odds / odds.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=tolerance / 10, rtol=0)
            assert outputs["logits"].dtype == outputs["probabilities"].dtype == np.float32
        answer = partial(exporter.answer, path, model)
        assert conformance.company_difference(answer, {"image": pictures}) <= model.spec.tolerances.outputs

    return check
