"""Runs of the DAG one after the other in one process of TFX's environment: `python several.py FOLDER...`.

Each folder has a `request.json` and gets an `answer.json`, and a `statistics.json` from StatisticsGen. Importing TFX
takes longer than most of these runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.tfx import EXTRA

# The first import says what TensorFlow may say.
from pipelines.tfx import __main__ as tfx
from pipelines.tfx.request import Request
from pipelines.training import keras_fit
from pipelines.training.record import Trained

LOST = "lost"
"""A file beside the request: the number of a class, and the model that the training is to forget it from."""


def main(folders: list[str]) -> None:
    from pipelines.tfx.answers import last_run

    for folder in map(Path, folders):
        if (lost := folder / LOST).exists():
            keras_fit.fit = forgetting(*lost.read_text().split())
        request = Request.read(folder / "request.json")
        tfx.run(request, folder / "answer.json")
        run = last_run(request.metadata)
        if run and (found := run.folder("StatisticsGen", "ExampleStatistics")):
            (folder / "statistics.json").write_text(json.dumps(statistics(found)))


def statistics(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each split, the figures that our own `Statistics` have, by their names there."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    from pipelines.tfx.examples import LABEL

    found = {}
    for path in sorted(folder.glob("Split-*/FeatureStats.pb")):
        (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
        features = {feature.path.step[0]: feature for feature in dataset.features}
        buckets = features[LABEL].string_stats.rank_histogram.buckets
        image = features["image"].num_stats
        found[path.parent.name.removeprefix("Split-")] = {
            "rows": int(dataset.num_examples),
            "classes": [int(one.sample_count) for one in sorted(buckets, key=lambda one: int(one.label))],
            "values": int(image.common_stats.tot_num_values),
            "zeros": int(image.num_zeros),
            "minimum": image.min,
            "maximum": image.max,
            "mean": image.mean,
            "std": image.std_dev,
        }
    return found


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
