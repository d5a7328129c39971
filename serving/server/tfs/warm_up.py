"""Warm-up by the requests in a SavedModel: records of PredictionLog.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import asyncio
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
from serving.server.tensors.signature import Tensors, signature_of
from serving.server.tfs.inference import CLASSIFY, REGRESS, by_examples, by_tasks, predict_call

log = logging.getLogger("tandem.server")


def replay(directory: Path, servable: Servable, max_tensor_bytes: int) -> None:
    """Run each record of the version's file, if there is one. Raises `ServerError`."""
    file = directory / "assets.extra" / "tf_serving_warmup_requests"
    if not file.exists():
        return
    count = 0
    for count, record in enumerate(_records(file), 1):
        try:
            asyncio.run(_run(record, servable, max_tensor_bytes))
        except ServerError as error:
            raise InvalidRequestError(f"record {count} of {file}: {error}") from error
    log.info("%s: warmed up by %d requests of its own", directory, count)


def _records(file: Path) -> Iterator[Any]:
    try:
        # Not tf.data: its first use from two threads at once is a segmentation fault.
        for data in tf.compat.v1.io.tf_record_iterator(str(file)):
            yield PredictionLog.FromString(data)
    except DecodeError as error:
        raise InvalidRequestError(f"{file}: a record cannot be read: {error}") from error
    except tf.errors.OpError as error:
        raise InvalidRequestError(f"{file}: expected a file of TFRecords: {error.message}") from error


async def _run(record: Any, servable: Servable, max_tensor_bytes: int) -> None:
    async def infer(call: Call) -> Tensors:
        signature = signature_of(signatures, call.signature)
        signature.check_names(call.inputs)
        for spec in signature.inputs:
            if spec.name in call.inputs:
                spec.check(call.inputs[spec.name])
        return servable.run(call.signature, call.inputs, call.outputs or signature.output_names)

    signatures = servable.signatures
    kind = record.WhichOneof("log_type")
    if kind in (None, "session_run_log"):
        raise UnimplementedError(f"expected a record of a request, got {kind}")
    request = getattr(record, kind).request
    if kind == "predict_log":
        await infer(predict_call(request, signatures, max_tensor_bytes))
    elif kind == "multi_inference_log":
        await by_tasks(infer, signatures, request, lambda _: None)
    else:
        method = CLASSIFY if kind == "classify_log" else REGRESS
        await by_examples(infer, signatures, method, request.model_spec.signature_name, request.input)
