"""What Evaluator measures and requires: the limits of the quality gate, in TensorFlow Model Analysis's words."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import PerSliceMetricThreshold

from models.base import ModelSpec, Profile
from pipelines.exporting.keras_graph import EXAMPLES_SIGNATURE
from pipelines.gates import Check
from pipelines.tfx.examples import LABEL

METRIC = "SparseCategoricalAccuracy"
OVERALL, PER_CLASS = tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[LABEL])


def config(spec: ModelSpec, profile: Profile) -> tfma.EvalConfig:
    """Accuracy overall and per class: at least the profile's, and not less than the blessed model's by more than
    the profile allows."""
    # A threshold of the metric itself would hold every slice to the overall limit.
    overall = _threshold(OVERALL, profile.regression, least=profile.minimum_accuracy)
    per_class = _threshold(PER_CLASS, profile.class_regression)
    accuracy = tfma.MetricConfig(class_name=METRIC, per_slice_thresholds=[overall, per_class])
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name=EXAMPLES_SIGNATURE, label_key=LABEL, prediction_key=spec.output_names[1]
            )
        ],
        slicing_specs=[OVERALL, PER_CLASS],
        metrics_specs=[tfma.MetricsSpec(metrics=[accuracy, tfma.MetricConfig(class_name="ExampleCount")])],
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


def metrics(evaluation: str, spec: ModelSpec) -> dict[str, float]:
    """What `gates.metrics` gives, as Evaluator measured it: `accuracy`, and `accuracy/<class>` for each class."""
    found = {}
    for slice_key, values in tfma.load_eval_result(evaluation).slicing_metrics:
        name = "accuracy" if not slice_key else f"accuracy/{spec.classes[int(slice_key[0][1])]}"
        # Beside it stands its difference to the blessed model's, where there is one.
        (accuracy,) = (value for key, value in values[""][""].items() if key.endswith("accuracy"))
        (found[name],) = map(float, accuracy.values())
    return found


def failures(evaluation: str, spec: ModelSpec) -> Iterator[Check]:
    """The limits that the model did not keep, with what was measured."""
    result = tfma.load_validation_result(evaluation)
    for failed in result.metric_validations_per_slice:
        labels = [single.int64_value for single in failed.slice_key.single_slice_keys]
        name = f"accuracy/{spec.classes[labels[0]]}" if labels else "accuracy"
        for failure in failed.failures:
            figure = failure.metric_value.double_value.value
            threshold = failure.metric_threshold
            if failure.metric_key.is_diff:
                limit = threshold.change_threshold.absolute.value
                yield Check("evaluator", f"{name}, less the blessed model's", figure, ">=", limit)
            else:
                limit = threshold.value_threshold.lower_bound.value
                yield Check("evaluator", name, figure, ">=", limit)
