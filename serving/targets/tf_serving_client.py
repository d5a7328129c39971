"""Clients of TensorFlow Serving's protocols."""

from __future__ import annotations

import numpy as np

from serving.targets.base import Images, Outputs, TargetError
from serving.targets.http import HttpConnection


class RestClient:
    """TF Serving's row form."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self._http = HttpConnection(host, port)
        self._path = f"/v1/models/{model}:predict"

    def predict(self, images: Images) -> Outputs:
        rows = self._http.json("POST", self._path, {"instances": images.tolist()})["predictions"]
        return Outputs(
            np.array([row["logits"] for row in rows], np.float32),
            np.array([row["probabilities"] for row in rows], np.float32),
        )

    def close(self) -> None:
        self._http.close()


class GrpcClient:
    """TF Serving's PredictionService. Imports TensorFlow: its protos are made of TensorFlow's."""

    def __init__(self, host: str, port: int, model: str) -> None:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        self._grpc, self._tf, self._model = grpc, tf, model
        self._request = predict_pb2.PredictRequest
        self._channel = grpc.insecure_channel(f"{host}:{port}")
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, images: Images) -> Outputs:
        request = self._request()
        request.model_spec.name = self._model
        request.inputs["image"].CopyFrom(self._tf.make_tensor_proto(images, self._tf.float32))
        try:
            answer = self._stub.Predict(request, timeout=30)
        except self._grpc.RpcError as error:
            raise TargetError(f"gRPC answered {error.code().name}: {error.details()}") from error
        arrays = {name: self._tf.make_ndarray(proto) for name, proto in answer.outputs.items()}
        return Outputs(arrays["logits"], arrays["probabilities"])

    def close(self) -> None:
        self._channel.close()
