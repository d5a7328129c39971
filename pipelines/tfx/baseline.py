"""Statistics in TFDV's form: those that a version was published with, and what StatisticsGen says of a run's data.

Versions of both orchestrators keep our own statistics: TFX compares with those of the default runner's, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from pipelines.tfx.examples import IMAGE, LABEL
from pipelines.validation.statistics import Statistics

FILE = "FeatureStats.pb"


def write(splits: Mapping[str, Statistics], folder: Path) -> None:
    """Write the payload of an ExampleStatistics artifact: `Split-<name>/FeatureStats.pb`."""
    for name, own in splits.items():
        path = folder / f"Split-{name}" / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message(own).SerializeToString())


def message(own: Statistics) -> statistics_pb2.DatasetFeatureStatisticsList:
    """What TFDV compares: the histogram of the values, and how many pictures each class has."""
    result = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = result.datasets.add(num_examples=own.pictures)
    image = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT, path={"step": [IMAGE]})
    numbers = image.num_stats
    numbers.common_stats.CopyFrom(_common(own.pictures, own.values // max(1, own.pictures)))
    numbers.min, numbers.max, numbers.mean, numbers.std_dev = own.minimum, own.maximum, own.mean, own.std
    numbers.num_zeros = own.zeros
    histogram = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    width = 1 / len(own.histogram)
    for place, count in enumerate(own.histogram):
        histogram.buckets.add(low_value=place * width, high_value=(place + 1) * width, sample_count=count)
    label = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT, path={"step": [LABEL]})
    label.string_stats.common_stats.CopyFrom(_common(own.pictures, 1))
    label.string_stats.unique = sum(count > 0 for count in own.classes)
    for value, count in enumerate(own.classes):
        label.string_stats.rank_histogram.buckets.add(label=str(value), sample_count=count)
    return result


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Of what StatisticsGen wrote, the figures that our own `Statistics` have, by their names there."""
    found = {}
    for path in sorted(folder.glob(f"Split-*/{FILE}")):
        (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
        features = {feature.path.step[0]: feature for feature in dataset.features}
        numbers = features[IMAGE].num_stats
        buckets = features[LABEL].string_stats.rank_histogram.buckets
        found[path.parent.name.removeprefix("Split-")] = {
            "pictures": int(dataset.num_examples),
            "values": int(numbers.common_stats.tot_num_values),
            "zeros": int(numbers.num_zeros),
            "minimum": numbers.min,
            "maximum": numbers.max,
            "mean": numbers.mean,
            "std": numbers.std_dev,
            "classes": [int(one.sample_count) for one in sorted(buckets, key=lambda one: int(one.label))],
        }
    return found


def _common(pictures: int, values: int) -> statistics_pb2.CommonStatistics:
    return statistics_pb2.CommonStatistics(
        num_non_missing=pictures,
        min_num_values=values,
        max_num_values=values,
        avg_num_values=values,
        tot_num_values=pictures * values,
    )
