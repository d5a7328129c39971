"""Evaluator's metrics and thresholds: the limits of the quality gate, in TensorFlow Model Analysis's terms."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import PerSliceMetricThreshold

from models.base import ModelSpec, Profile
from models.classification import Classification
from pipelines.exporting.keras_graph import EXAMPLES_SIGNATURE
from pipelines.gates import Check
from pipelines.tfx.examples import LABEL

OVERALL, PER_CLASS = tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[LABEL])


def config(spec: ModelSpec, profile: Profile, spread: float) -> tfma.EvalConfig:
    """The task's score overall and per class: at least the profile's, and not less than the blessed model's by more
    than the profile allows.

    TFMA has no R2: `spread`, the variance of the test targets, turns its limit into one of the mean squared error.
    """
    classes = isinstance(spec.task, Classification)
    if classes:
        # A threshold of the metric itself would hold every slice to the overall limit.
        overall = _threshold(OVERALL, profile.score_regression, least=profile.minimum_score)
        thresholds = [overall, _threshold(PER_CLASS, profile.class_regression)]
        metric = tfma.MetricConfig(class_name="SparseCategoricalAccuracy", per_slice_thresholds=thresholds)
    else:
        limits = tfma.MetricThreshold(
            value_threshold=tfma.GenericValueThreshold(
                upper_bound={"value": (1 - profile.minimum_score) * spread}
            ),
            change_threshold=tfma.GenericChangeThreshold(
                direction=tfma.MetricDirection.LOWER_IS_BETTER,
                absolute={"value": profile.score_regression * spread},
            ),
        )
        metric = tfma.MetricConfig(class_name="MeanSquaredError", threshold=limits)
    prediction = spec.task.outputs[-1].name
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name=EXAMPLES_SIGNATURE, label_key=LABEL, prediction_key=prediction)
        ],
        slicing_specs=[OVERALL, PER_CLASS] if classes else [OVERALL],
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


def metrics(evaluation: str, spec: ModelSpec, spread: float) -> dict[str, float]:
    """Return Evaluator's figures by the names of `Task.metrics`: `accuracy`, `accuracy/<class>`, or `mse`, `r2`."""
    found = {}
    ending = "accuracy" if isinstance(spec.task, Classification) else "error"
    for slice_key, values in tfma.load_eval_result(evaluation).slicing_metrics:
        # Beside it stands its difference to the blessed model's, where there is one.
        (measured,) = (value for key, value in values[""][""].items() if key.endswith(ending))
        (figure,) = map(float, measured.values())
        if isinstance(spec.task, Classification):
            name = "accuracy" if not slice_key else f"accuracy/{spec.task.classes[int(slice_key[0][1])]}"
            found[name] = figure
        else:
            found |= {"mse": figure, "r2": 1 - figure / spread}
    return found


def failures(evaluation: str, spec: ModelSpec) -> Iterator[Check]:
    """Yield a check for each threshold that the model missed."""
    result = tfma.load_validation_result(evaluation)
    for failed in result.metric_validations_per_slice:
        labels = [single.int64_value for single in failed.slice_key.single_slice_keys]
        classes = spec.task.classes if isinstance(spec.task, Classification) else ()
        name = f"accuracy/{classes[labels[0]]}" if labels else "accuracy" if classes else "mse"
        for failure in failed.failures:
            figure, limits = failure.metric_value.double_value.value, failure.metric_threshold
            told, bounds = name, limits.value_threshold
            limit = (bounds.lower_bound if classes else bounds.upper_bound).value
            if failure.metric_key.is_diff:
                told, limit = f"{name}, less the blessed model's", limits.change_threshold.absolute.value
            yield Check("evaluator", told, figure, ">=" if classes else "<=", limit)
