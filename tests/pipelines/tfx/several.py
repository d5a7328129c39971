"""Runs of the DAG one after the other in one process of TFX's environment: `python several.py FOLDER...`.

Each folder has a `request.json` and gets an `answer.json`. Importing TFX takes longer than most of these runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.tfx import EXTRA

# The first import says what TensorFlow may say.
from pipelines.tfx import __main__ as tfx
from pipelines.tfx.request import Request
from pipelines.training import keras_fit
from pipelines.training.record import Trained

LOST = "lost"
"""A file beside the request: the number of a class, and the model that the training is to forget it from."""


def main(folders: list[str]) -> None:
    for folder in map(Path, folders):
        if (lost := folder / LOST).exists():
            keras_fit.fit = forgetting(*lost.read_text().split())
        tfx.run(Request.read(folder / "request.json"), folder / "answer.json")


def forgetting(label: str, model: str) -> Callable[..., Trained]:
    """The weights of a pushed model with one class silenced, in the place of a training."""

    def fit(*_: object) -> Trained:
        trained = Trained.read("tensorflow", Path(model) / EXTRA)
        assert trained is not None
        trained.weights["classifier/bias"][int(label)] -= 100
        return trained

    return fit


if __name__ == "__main__":
    main(sys.argv[1:])
