"""Clients of TorchServe's inference: JSON and .npy over REST, .npy over gRPC."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.signature import Arrays, Signature
from serving.targets.base import TargetError
from serving.targets.http import HttpClient
from serving.targets.tf_serving_client import row_answer, row_request


class RestClient(HttpClient):
    """TF Serving's row form."""

    PATH = "/predictions/{model}"
    CONTENT_TYPE = "application/json"

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        answer = self._http.request(
            "POST", self._path, self._body(inputs), {"Content-Type": self.CONTENT_TYPE}
        )
        return outputs(answer.body, self._signature)

    def _body(self, inputs: Arrays) -> bytes:
        return json_body(inputs, self._signature.batched)


class NpyClient(RestClient):
    """A body in .npy form, for models with one input."""

    CONTENT_TYPE = "application/octet-stream"

    def _body(self, inputs: Arrays) -> bytes:
        return npy_body(inputs, self._signature.batched)


class GrpcClient:
    """`InferenceAPIsService/Predictions` with an .npy body as `data`."""

    METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

    def __init__(self, host: str, port: int, model: str, signature: Signature) -> None:
        import grpc

        from serving.torchserve.inference_pb2 import PredictionResponse, PredictionsRequest

        self._error, self._request = grpc.RpcError, PredictionsRequest
        self._model, self._signature = model, signature
        self._channel = grpc.insecure_channel(f"{host}:{port}")
        self._call = self._channel.unary_unary(
            self.METHOD, PredictionsRequest.SerializeToString, PredictionResponse.FromString
        )

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        body = npy_body(inputs, self._signature.batched)
        try:
            answer = self._call(self._request(model_name=self._model, input={"data": body}), timeout=30)
        except self._error as error:
            # The second line is the name of a Java exception.
            message = (error.details() or "").split("\n")[0]
            raise TargetError(f"torchserve answered {error.code().name} over gRPC: {message}") from error
        return outputs(answer.prediction, self._signature)

    def close(self) -> None:
        self._channel.close()


def json_body(inputs: Arrays, batched: bool = True) -> bytes:
    """Return a body in TF Serving's row form, with the digits of a float32: TorchServe limits bodies."""

    def encode(array: NDArray[Any]) -> Any:  # noqa: ANN401
        # orjson accepts only arrays with dimensions, in C order.
        return np.array(array, order="C") if array.ndim else array.item()

    return orjson.dumps(row_request(inputs, batched, encode), option=orjson.OPT_SERIALIZE_NUMPY)


def npy_body(inputs: Arrays, batched: bool = True) -> bytes:
    """Return the only input in .npy form, or several inputs as JSON."""
    if len(inputs) > 1:
        return json_body(inputs, batched)
    file = io.BytesIO()
    np.save(file, np.array(next(iter(inputs.values())), order="C"), allow_pickle=False)
    return file.getvalue()


def outputs(answer: bytes, signature: Signature) -> dict[str, NDArray[Any]]:
    """Read a response. Raises `TargetError` if it is an error, as for a gRPC call in a batch."""
    try:
        return row_answer(orjson.loads(answer), signature)
    except (ValueError, KeyError, TypeError):
        raise TargetError(f"torchserve answered {answer[:300].decode(errors='replace')}") from None
