"""What the first components read, in folders named by what is in them: TFX's cache knows such things by their paths."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

import models.base
from models.base import Model
from pipelines.tfx import examples, sources
from pipelines.tfx.examples import LABEL
from pipelines.tfx.request import Request
from pipelines.validation import schema as schemas
from pipelines.validation import statistics
from pipelines.validation.schema import Schema
from pipelines.validation.statistics import Statistics, Values

STATISTICS = "FeatureStats.pb"


@dataclass(frozen=True)
class Inputs:
    """Paths; "" where nothing is published."""

    records: str
    schema: str
    published: str
    """The published version's statistics as our own validation writes them."""
    baseline: str
    """The same as StatisticsGen writes them."""
    version: int


def prepare(request: Request) -> Inputs:
    """Write what is not there yet."""
    records = request.folder / "records" / _name(request.data, sources.digest(["pipelines.tfx.examples"]))
    model = models.base.load(request.model)
    examples.write(model.spec, request.rows, records)
    text = text_format.MessageToString(schema(model))
    curated = _kept(request.folder / "schema" / _name(text) / "schema.pbtxt", text)
    if not request.published:
        return Inputs(str(records), str(curated), "", "", 0)
    own = _name(request.published, sources.digest(["pipelines.tfx.inputs"]))
    folder = request.folder / "published" / own
    published = _kept(folder / "statistics.json", request.published)
    write_baseline(model, statistics.from_json(request.published), folder)
    return Inputs(str(records), str(curated), str(published), str(folder), request.version)


def schema(model: Model) -> schema_pb2.Schema:
    """The curated schema, which both orchestrators validate with, and the feature that only the records have."""
    curated = json_format.Parse((model.folder / "schema.json").read_text(), schema_pb2.Schema())
    curated.feature.add(
        name=examples.NUMBER,
        type=schema_pb2.INT,
        presence=schema_pb2.FeaturePresence(min_fraction=1, min_count=1),
        shape=schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=1)]),
    )
    return curated


def _kept(path: Path, text: str) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def write_baseline(model: Model, splits: Mapping[str, Statistics], folder: Path) -> None:
    """Write the payload of an ExampleStatistics artifact: `Split-<name>/FeatureStats.pb`."""
    rules = schemas.load(model)
    for name, split in splits.items():
        path = folder / f"Split-{name}" / STATISTICS
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message(split, rules).SerializeToString())


def message(split: Statistics, rules: Schema) -> statistics_pb2.DatasetFeatureStatisticsList:
    """What TFDV compares: the histograms of the values, and how many rows each class has."""
    result = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = result.datasets.add(num_examples=split.rows)
    for name, values in split.inputs.items():
        _numbers(dataset, name, values, split.rows, rules.inputs[name].range)
    if split.targets is not None:
        _numbers(dataset, LABEL, split.targets, split.rows, rules.label.range)
        return result
    label = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT, path={"step": [LABEL]})
    label.string_stats.common_stats.CopyFrom(_common(split.rows, 1))
    label.string_stats.unique = sum(count > 0 for count in split.classes)
    for value, count in enumerate(split.classes):
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
