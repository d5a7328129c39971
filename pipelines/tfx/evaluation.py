"""Evaluator's metrics and thresholds: the limits of the quality gate, in TensorFlow Model Analysis's terms."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import PerSliceMetricThreshold

from models.base import Profile
from models.classification import Classification
from pipelines.exporting.keras_graph import EXAMPLES_SIGNATURE
from pipelines.gates import Check
from pipelines.tfx.examples import LABEL

OVERALL, PER_CLASS = tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[LABEL])


def config(task: Classification, profile: Profile) -> tfma.EvalConfig:
    """Return the thresholds of the accuracy, overall and per class: at least the profile's, and at most its margin
    below the blessed model's."""
    # A threshold of the metric itself would hold every slice to the overall limit.
    overall = _threshold(OVERALL, profile.score_regression, least=profile.minimum_score)
    thresholds = [overall, _threshold(PER_CLASS, profile.class_regression)]
    metric = tfma.MetricConfig(class_name="SparseCategoricalAccuracy", per_slice_thresholds=thresholds)
    prediction = task.outputs[-1].name
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name=EXAMPLES_SIGNATURE, label_key=LABEL, prediction_key=prediction)
        ],
        slicing_specs=[OVERALL, PER_CLASS],
        metrics_specs=[tfma.MetricsSpec(metrics=[metric, tfma.MetricConfig(class_name="ExampleCount")])],
    )


def _threshold(slices: tfma.SlicingSpec, margin: float, least: float = 0.0) -> PerSliceMetricThreshold:
    return PerSliceMetricThreshold(
        slicing_specs=[slices],
        threshold=tfma.MetricThreshold(
            value_threshold=tfma.GenericValueThreshold(lower_bound={"value": least}),
            change_threshold=tfma.GenericChangeThreshold(
                direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -margin}
            ),
        ),
    )


def metrics(evaluation: str, task: Classification) -> dict[str, float]:
    """Return Evaluator's figures by the names of `Task.metrics`: `accuracy` and `accuracy/<class>`."""
    found = {}
    for slice_key, values in tfma.load_eval_result(evaluation).slicing_metrics:
        # Beside it stands its difference to the blessed model's, where there is one.
        (measured,) = (value for key, value in values[""][""].items() if key.endswith("accuracy"))
        (figure,) = map(float, measured.values())
        found[_name(task, [int(value) for _key, value in slice_key])] = figure
    return found


def failures(evaluation: str, task: Classification) -> Iterator[Check]:
    """Yield a check for each threshold that the model missed."""
    result = tfma.load_validation_result(evaluation)
    for failed in result.metric_validations_per_slice:
        name = _name(task, [single.int64_value for single in failed.slice_key.single_slice_keys])
        for failure in failed.failures:
            figure, limits = failure.metric_value.double_value.value, failure.metric_threshold
            told, limit = name, limits.value_threshold.lower_bound.value
            if failure.metric_key.is_diff:
                told, limit = f"{name}, less the blessed model's", limits.change_threshold.absolute.value
            yield Check("evaluator", told, figure, ">=", limit)


def _name(task: Classification, labels: list[int]) -> str:
    return f"accuracy/{task.classes[labels[0]]}" if labels else "accuracy"
