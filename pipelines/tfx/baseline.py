"""The statistics that a version was published with, in TFDV's form.

Versions of both orchestrators keep our own statistics: TFX compares with those of the default runner's, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from models.base import Model
from pipelines.tfx.examples import LABEL
from pipelines.validation import schema
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics, Values

FILE = "FeatureStats.pb"


def write(model: Model, splits: Mapping[str, Statistics], folder: Path) -> None:
    """Write the payload of an ExampleStatistics artifact: `Split-<name>/FeatureStats.pb`."""
    rules = schema.load(model)
    for name, own in splits.items():
        path = folder / f"Split-{name}" / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message(own, rules).SerializeToString())


def message(own: Statistics, rules: Schema) -> statistics_pb2.DatasetFeatureStatisticsList:
    """What TFDV compares: the histograms of the values, and how many rows each class has."""
    result = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = result.datasets.add(num_examples=own.rows)
    for name, values in own.inputs.items():
        _numbers(dataset, name, values, own.rows, rules.inputs[name].range)
    if own.targets is not None:
        _numbers(dataset, LABEL, own.targets, own.rows, rules.label.range)
        return result
    label = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT, path={"step": [LABEL]})
    label.string_stats.common_stats.CopyFrom(_common(own.rows, 1))
    label.string_stats.unique = sum(count > 0 for count in own.classes)
    for value, count in enumerate(own.classes):
        label.string_stats.rank_histogram.buckets.add(label=str(value), sample_count=count)
    return result


def _numbers(
    dataset: statistics_pb2.DatasetFeatureStatistics,
    name: str,
    values: Values,
    rows: int,
    limits: tuple[float, float] | None,
) -> None:
    kinds = statistics_pb2.FeatureNameStatistics
    kind = kinds.FLOAT if values.dtype in ("float32", "uint8") else kinds.INT
    numbers = dataset.features.add(type=kind, path={"step": [name]}).num_stats
    numbers.common_stats.CopyFrom(_common(rows, values.values // max(1, rows)))
    numbers.min, numbers.max, numbers.num_zeros = values.minimum, values.maximum, values.zeros
    numbers.mean, numbers.std_dev = values.mean, values.std
    if limits is None:
        return
    histogram = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    low, width = limits[0], (limits[1] - limits[0]) / len(values.histogram)
    for place, count in enumerate(values.histogram):
        histogram.buckets.add(
            low_value=low + place * width, high_value=low + (place + 1) * width, sample_count=count
        )


def _common(rows: int, values: int) -> statistics_pb2.CommonStatistics:
    return statistics_pb2.CommonStatistics(
        num_non_missing=rows,
        min_num_values=values,
        max_num_values=values,
        avg_num_values=values,
        tot_num_values=rows * values,
    )
