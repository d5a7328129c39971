"""Clients of TensorFlow Serving's protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import STRING, Arrays, Signature, Tensor, batch_size
from serving.targets.base import TargetError
from serving.targets.http import HttpClient


def plain(array: NDArray[Any]) -> Any:  # noqa: ANN401
    """Return an array as nested lists; text is UTF-8."""
    if array.dtype.kind not in "OS":
        return array.tolist()
    texts = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return np.array(texts, object).reshape(array.shape).tolist()


def row_request(
    inputs: Arrays, batched: bool = True, encode: Callable[[NDArray[Any]], Any] = plain
) -> dict[str, object]:
    """Return a request in TF Serving's row form, without names for one input; in columns if a model is not batched."""
    values = {name: encode(array) for name, array in inputs.items()}
    if not batched:
        return {"inputs": values}
    (first, *others) = values
    if not others:
        return {"instances": values[first]}
    rows = range(batch_size(inputs))
    return {"instances": [{name: value[row] for name, value in values.items()} for row in rows]}


def array_of(values: Any, tensor: Tensor) -> NDArray[Any]:  # noqa: ANN401
    """Return the array of a tensor's JSON values; text is bytes."""
    if tensor.dtype != STRING:
        return np.array(values, tensor.dtype)
    texts = np.array(values, object)
    encoded = [value.encode() if isinstance(value, str) else value for value in texts.ravel().tolist()]
    flat: NDArray[Any] = np.empty(len(encoded), object)
    flat[:] = encoded
    return flat.reshape(texts.shape)


def row_answer(answer: Mapping[str, Any], signature: Signature) -> dict[str, NDArray[Any]]:
    """Return the outputs of a response in row form, by name; a single output may come without its name."""
    (first, *others) = signature.outputs
    rows = answer["predictions" if signature.batched else "outputs"]
    sample = next(iter(rows), None) if signature.batched else rows
    if not others and not (isinstance(sample, dict) and first.name in sample):
        return {first.name: array_of(rows, first)}
    return {
        t.name: array_of([row[t.name] for row in rows] if signature.batched else rows[t.name], t)
        for t in signature.outputs
    }


class RestClient(HttpClient):
    """TF Serving's row form."""

    PATH = "/v1/models/{model}:predict"

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        answer = self._http.json("POST", self._path, row_request(inputs, self._signature.batched))
        return row_answer(answer, self._signature)


class GrpcClient:
    """TF Serving's PredictionService. The first request imports TensorFlow, for its protos."""

    def __init__(self, host: str, port: int, model: str) -> None:
        import grpc

        self._channel, self._model = grpc.insecure_channel(f"{host}:{port}"), model

    @cached_property
    def _stub(self) -> Any:  # noqa: ANN401
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        return prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        try:
            answer = self._stub.Predict(request, timeout=30)
        except grpc.RpcError as error:
            raise TargetError(f"gRPC answered {error.code().name}: {error.details()}") from error
        return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}

    def close(self) -> None:
        self._channel.close()
