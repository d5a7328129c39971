"""The answers that every endpoint must give: those of the source frameworks, on the same test pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import models.base
from models.base import FRAMEWORKS, Weights
from models.signature import Arrays
from pipelines import data
from pipelines.exporting import reference
from tests.pictures import Images, as_floats

COUNT = 200


def pictures(artifacts: Path) -> tuple[Images, np.ndarray]:
    """The first test pictures and their labels."""
    test = data.load(models.base.load("fashion"), artifacts, 1).test.take(slice(COUNT))
    return as_floats(test), test.targets


def logits(run: Path, images: Images) -> dict[str, np.ndarray]:
    """Each framework's own logits, from the weights that it trained; `run` is the training's folder."""
    model, result = models.base.load("fashion"), {}
    for framework in FRAMEWORKS:
        with np.load(run / framework / "weights.npz") as file:
            weights: Weights = {name: file[name] for name in file.files}
        result[framework] = reference.outputs(model, framework, weights, {"image": images})["logits"]
    return result


def assert_agrees(outputs: Arrays, expected: np.ndarray, endpoint: str) -> None:
    """The same class for every picture, the same figures within what JSON and the browser's kernels round."""
    np.testing.assert_array_equal(outputs["logits"].argmax(1), expected.argmax(1), err_msg=endpoint)
    np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=2e-5, err_msg=endpoint)
    odds = np.exp(expected - expected.max(axis=1, keepdims=True))
    softmax = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], softmax, rtol=0, atol=1e-5, err_msg=endpoint)
