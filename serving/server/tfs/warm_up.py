"""Warm-up by the requests that a SavedModel brings along: records of PredictionLog.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.server.backends.base import Servable
from serving.server.dataplane import Call
from serving.server.errors import InvalidRequestError, ServerError, UnimplementedError
from serving.server.tensors.checks import check
from serving.server.tensors.signature import Array, Tensors
from serving.server.tfs.examples import (
    CLASSIFY,
    REGRESS,
    examples_call,
    result,
    serialized,
    signature_for,
)
from serving.server.tfs.messages import check_signatures, check_tasks, predict_call

log = logging.getLogger("tandem.server")

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


def replay(directory: Path, servable: Servable, times: int, max_tensor_bytes: int) -> None:
    """Run each record of the version's file, where it has one, so many times. Raises `ServerError`."""
    file = directory / FILE
    if not file.exists():
        return
    count = 0
    for count, record in enumerate(_records(file), 1):
        if count > MAX_RECORDS:
            raise InvalidRequestError(f"{file}: expected at most {MAX_RECORDS} records, got more")
        try:
            for _ in range(times):
                _run(record, servable, max_tensor_bytes)
        except ServerError as error:
            raise InvalidRequestError(f"record {count} of {file}: {error}") from error
    log.info("%s: warmed up by %d requests of its own", directory, count)


def _records(file: Path) -> Iterator[Any]:
    try:
        for data in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            record = PredictionLog()
            record.ParseFromString(data)
            yield record
    except DecodeError as error:
        raise InvalidRequestError(f"{file}: a record cannot be read: {error}") from error
    except tf.errors.OpError as error:
        raise InvalidRequestError(f"{file}: expected a file of TFRecords: {error.message}") from error


def _run(record: Any, servable: Servable, max_tensor_bytes: int) -> None:  # noqa: ANN401 - a PredictionLog
    signatures = servable.signatures
    kind = record.WhichOneof("log_type")
    match kind:
        case "predict_log":
            _infer(servable, predict_call(record.predict_log.request, signatures, max_tensor_bytes))
        case "classify_log":
            request = record.classify_log.request
            _run_examples(servable, CLASSIFY, request.model_spec.signature_name, serialized(request.input))
        case "regress_log":
            request = record.regress_log.request
            _run_examples(servable, REGRESS, request.model_spec.signature_name, serialized(request.input))
        case "multi_inference_log":
            request = record.multi_inference_log.request
            tasks, examples = check_tasks(request), serialized(request.input)
            for task, key in zip(tasks, check_signatures(tasks, signatures, False), strict=True):
                _run_examples(servable, task.method_name, key, examples)
        case "session_run_log":
            raise UnimplementedError(f"expected a record of a request, got {kind}")


def _run_examples(servable: Servable, method: str, key: str, examples: Array) -> None:
    key = signature_for(servable.signatures, method, key, False)
    outputs = _infer(servable, examples_call(servable.signatures, method, key, examples))
    result(method, outputs, len(examples))


def _infer(servable: Servable, call: Call) -> Tensors:
    signature = servable.signatures[call.signature]
    inputs = signature.defaults | call.inputs
    if not signature.required <= inputs.keys() <= signature.names:
        raise InvalidRequestError(
            f"expected inputs {', '.join(signature.input_names)}, got {', '.join(inputs) or 'none'}"
        )
    for spec in signature.inputs:
        if spec.name in inputs:
            check(spec, inputs[spec.name])
    return servable.run(call.signature, inputs, call.outputs or signature.output_names)
