"""Clients of TensorFlow Serving's protocols."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import STRING, Arrays, Signature, Tensor, batch_size
from serving.targets.base import TargetError
from serving.targets.http import HttpConnection


def row_request(inputs: Arrays, batched: bool = True) -> dict[str, object]:
    """TF Serving's row form: the values alone where there is one input; its columns where a model is not batched."""
    values = {name: plain(array) for name, array in inputs.items()}
    if not batched:
        return {"inputs": values}
    (first, *others) = values
    if not others:
        return {"instances": values[first]}
    rows = range(batch_size(inputs))
    return {"instances": [{name: value[row] for name, value in values.items()} for row in rows]}


def plain(array: NDArray[Any]) -> Any:  # noqa: ANN401
    """An array as JSON has it; text is UTF-8."""
    if array.dtype.kind not in "OS":
        return array.tolist()
    texts = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return np.array(texts, object).reshape(array.shape).tolist()


def array_of(values: Any, tensor: Tensor) -> NDArray[Any]:  # noqa: ANN401
    """The array that JSON's values are of a tensor; text is bytes."""
    if tensor.dtype != STRING:
        return np.array(values, tensor.dtype)
    texts = np.array(values, object)
    encoded = [value.encode() if isinstance(value, str) else value for value in texts.ravel().tolist()]
    flat: NDArray[Any] = np.empty(len(encoded), object)
    flat[:] = encoded
    return flat.reshape(texts.shape)


class RestClient:
    """TF Serving's row form."""

    def __init__(self, host: str, port: int, model: str, signature: Signature) -> None:
        self._http = HttpConnection(host, port)
        self._path, self._signature = f"/v1/models/{model}:predict", signature

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        batched = self._signature.batched
        answer = self._http.json("POST", self._path, row_request(inputs, batched))
        (first, *others) = self._signature.outputs
        rows = answer["predictions" if batched else "outputs"]
        if not others:
            # Both forms leave out the name of an only output.
            return {first.name: array_of(rows, first)}
        columns = {
            t.name: [row[t.name] for row in rows] if batched else rows[t.name] for t in (first, *others)
        }
        return {t.name: array_of(columns[t.name], t) for t in (first, *others)}

    def close(self) -> None:
        self._http.close()


class GrpcClient:
    """TF Serving's PredictionService. Its first request imports TensorFlow: its protos are made of TensorFlow's."""

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
