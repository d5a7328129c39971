"""The curated schema of a model's data: `models/<model>/schema.json`, next to its spec.

It is a Schema of TensorFlow Metadata in protobuf's JSON form (tensorflow_metadata/proto/v0/schema.proto), so that
TFX reads the same file: `google.protobuf.json_format.Parse(text, schema_pb2.Schema())`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base import Model, ModelError

FILE = "schema.json"


@dataclass(frozen=True)
class Schema:
    """What the pictures and their labels must be, and how far a split may be from another.

    The thresholds may be missing (None): then nothing is compared. `pixels_*` are Jensen-Shannon divergences of the
    histograms (base 2, 0..1), `labels_*` largest differences of the classes' shares. Skew is between the splits of one
    run, drift is from the published version.
    """

    shape: tuple[int, ...]
    minimum: float
    maximum: float
    classes: int
    least_pictures: int
    pixels_skew: float | None
    pixels_drift: float | None
    labels_skew: float | None
    labels_drift: float | None


def path(model: Model) -> Path:
    """Where a model's schema lies."""
    return model.folder / FILE


def load(model: Model) -> Schema:
    """Read a model's schema. Raises `ModelError` where it is missing, damaged, or at odds with the spec."""
    file = path(model)
    try:
        fields = json.loads(file.read_text())
        features = {feature["name"]: feature for feature in fields["feature"]}
        image, label = features[model.spec.input_name], features["label"]
        schema = Schema(
            shape=tuple(int(dim["size"]) for dim in image["shape"]["dim"]),
            minimum=float(image["float_domain"]["min"]),
            maximum=float(image["float_domain"]["max"]),
            classes=int(label["int_domain"]["max"]) + 1,
            least_pictures=int(fields.get("dataset_constraints", {}).get("min_examples_count", 1)),
            pixels_skew=_threshold(image, "skew_comparator", "jensen_shannon_divergence"),
            pixels_drift=_threshold(image, "drift_comparator", "jensen_shannon_divergence"),
            labels_skew=_threshold(label, "skew_comparator", "infinity_norm"),
            labels_drift=_threshold(label, "drift_comparator", "infinity_norm"),
        )
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: copy that of models/fashion and change it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} cannot be read: expected a Schema of TensorFlow Metadata as JSON, with the features "
            f"{model.spec.input_name!r} and 'label': {type(error).__name__} {error}"
        ) from error
    expected = (model.spec.image_shape, len(model.spec.classes))
    if (schema.shape, schema.classes) != expected:
        raise ModelError(
            f"{file} has pictures of shape {list(schema.shape)} in {schema.classes} classes, "
            f"spec.py has {list(expected[0])} in {expected[1]}"
        )
    return schema


def _threshold(feature: dict[str, Any], comparator: str, distance: str) -> float | None:
    threshold = feature.get(comparator, {}).get(distance, {}).get("threshold")
    return None if threshold is None else float(threshold)
