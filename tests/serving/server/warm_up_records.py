"""What a SavedModel brings along for its warm-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_warm_up(directory: Path, *records: Any) -> None:
    """The warm-up file of a version: records, or bytes in their place."""
    import tensorflow as tf

    (directory / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / "assets.extra" / "tf_serving_warmup_requests")) as file:
        for record in records:
            file.write(record if isinstance(record, bytes) else record.SerializeToString())


def predict_log(signature: str, **inputs: object) -> Any:
    """A PredictionLog of a Predict by a signature."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def examples(**features: float) -> Any:
    """An Input of one Example for each feature."""
    from tensorflow_serving.apis.input_pb2 import Input

    made = Input()
    for name, value in features.items():
        made.example_list.examples.add().features.feature[name].float_list.value.append(value)
    return made
