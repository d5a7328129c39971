"""The curated schema of a model's data: `models/<model>/schema.json`, next to its spec.

It is a Schema of TensorFlow Metadata in protobuf's JSON form (tensorflow_metadata/proto/v0/schema.proto), so that
TFX reads the same file: `google.protobuf.json_format.Parse(text, schema_pb2.Schema())`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base import Model, ModelError
from models.classification import Classification

FILE = "schema.json"
SHANNON = "jensen_shannon_divergence"
LABEL = "label"


@dataclass(frozen=True)
class Feature:
    """One input, or the label; limits that are None do not count.

    `skew` is the largest distance between the splits of a run, `drift` from the published version: Jensen-Shannon
    divergences of the histograms (base 2, 0..1), or the largest difference of the classes' shares.
    """

    minimum: float | None = None
    maximum: float | None = None
    skew: float | None = None
    drift: float | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """The range of the histogram; None if the schema has none."""
        return None if self.minimum is None or self.maximum is None else (self.minimum, self.maximum)


@dataclass(frozen=True)
class Schema:
    """The limits of inputs and labels; their shapes and types are the spec's."""

    path: Path
    inputs: dict[str, Feature]
    label: Feature
    least_rows: int


def load(model: Model) -> Schema:
    """Read a model's schema. Raises `ModelError` where it is missing, damaged, or at odds with the spec."""
    file, spec = model.folder / FILE, model.spec
    classes = spec.task.classes if isinstance(spec.task, Classification) else ()
    try:
        fields = json.loads(file.read_text())
        features = {feature["name"]: feature for feature in fields["feature"]}
        shapes = {
            name: tuple(int(dim["size"]) for dim in feature["shape"]["dim"])
            for name, feature in features.items()
        }
        schema = Schema(
            path=file,
            inputs={tensor.name: _feature(features[tensor.name], SHANNON) for tensor in spec.inputs},
            label=_feature(features[LABEL], "infinity_norm" if classes else SHANNON),
            least_rows=int(fields.get("dataset_constraints", {}).get("min_examples_count", 1)),
        )
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: copy that of models/fashion and change it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        names = ", ".join(repr(name) for name in (*(tensor.name for tensor in spec.inputs), LABEL))
        raise ModelError(
            f"{file} cannot be read: expected a Schema of TensorFlow Metadata as JSON, with the features "
            f"{names}: {type(error).__name__} {error}"
        ) from error
    found = {name: shapes[name] for name in schema.inputs}
    expected = {tensor.name: tensor.row for tensor in spec.inputs}
    if found != expected:
        raise ModelError(f"{file} has inputs of the shapes {found}, spec.py has {expected}")
    if classes and schema.label.range != (0, len(classes) - 1):
        raise ModelError(
            f"{file} has labels {schema.label.minimum} to {schema.label.maximum}, "
            f"spec.py has {len(classes)} classes: 0 to {len(classes) - 1}"
        )
    return schema


def _feature(fields: dict[str, Any], distance: str) -> Feature:
    domain = fields.get("float_domain") or fields.get("int_domain") or {}
    comparators = [fields.get(f"{kind}_comparator", {}) for kind in ("skew", "drift")]
    limits = [
        domain.get("min"),
        domain.get("max"),
        *(own.get(distance, {}).get("threshold") for own in comparators),
    ]
    feature = Feature(*(None if limit is None else float(limit) for limit in limits))
    if feature.range and not -math.inf < feature.range[0] <= feature.range[1] < math.inf:
        raise ValueError(f"{fields['name']} has the range {feature.range}")
    return feature
