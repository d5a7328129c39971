"""Clients of the Open Inference Protocol v2.

https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, Signature
from serving.server.oip.codec import name_of
from serving.server.tensors.signature import dtype_of
from serving.targets.base import TargetError
from serving.targets.http import HttpClient
from serving.targets.tf_serving_client import array_of, plain

LENGTH = "Inference-Header-Content-Length"
"""The header with the size of the JSON before binary tensors."""


class RestClient(HttpClient):
    """The protocol's plain JSON form."""

    PATH = "/v2/models/{model}/infer"

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        answer = self._http.json("POST", self._path, inference_request(inputs, self._signature))
        tensors = {tensor.name: tensor for tensor in self._signature.outputs}
        return {
            output["name"]: array_of(output["data"], tensors[output["name"]]).reshape(output["shape"])
            for output in answer["outputs"]
        }


def inference_request(inputs: Arrays, signature: Signature) -> dict[str, object]:
    """Return the JSON body of a request for all outputs."""
    tensors = [_described(name, array) | {"data": plain(array.ravel())} for name, array in inputs.items()]
    return {"inputs": tensors, "outputs": [{"name": tensor.name} for tensor in signature.outputs]}


def _described(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": name_of(dtype_of(array)), "shape": list(array.shape)}


class BinaryRestClient(RestClient):
    """The binary tensor extension: a JSON header, then the tensors' raw little-endian bytes."""

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        tensors, raw = [], b""
        for name, array in inputs.items():
            content = array.astype(array.dtype.newbyteorder("<")).tobytes()
            tensors.append(_described(name, array) | {"parameters": {"binary_data_size": len(content)}})
            raw += content
        outputs = [{"name": t.name, "parameters": {"binary_data": True}} for t in self._signature.outputs]
        header = json.dumps({"inputs": tensors, "outputs": outputs}).encode()
        answer = self._http.request("POST", self._path, header + raw, {LENGTH: str(len(header))})
        if (length := answer.headers.get(LENGTH)) is None:
            raise TargetError(f"{self._path}: binary tensors were asked for, and JSON came")
        end = int(length)
        document, arrays = json.loads(answer.body[:end]), {}
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in self._signature.outputs}
        for output in document["outputs"]:
            size = output["parameters"]["binary_data_size"]
            dtype = dtypes[output["name"]].newbyteorder("<")
            array = np.frombuffer(answer.body[end : end + size], dtype).reshape(output["shape"])
            arrays[output["name"]], end = array, end + size
        return arrays


class GrpcClient:
    """gRPC, by Triton's client library."""

    def __init__(self, host: str, port: int, model: str, signature: Signature) -> None:
        import tritonclient.grpc as triton

        self._triton, self._model, self._signature = triton, model, signature
        self._client = triton.InferenceServerClient(f"{host}:{port}")

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        tensors = []
        for name, array in inputs.items():
            tensor = self._triton.InferInput(name, list(array.shape), name_of(dtype_of(array)))
            tensor.set_data_from_numpy(np.array(array, order="C"))
            tensors.append(tensor)
        wanted = [self._triton.InferRequestedOutput(tensor.name) for tensor in self._signature.outputs]
        try:
            answer = self._client.infer(self._model, tensors, outputs=wanted, client_timeout=30)
        except self._triton.InferenceServerException as error:
            raise TargetError(f"gRPC answered {error.status()}: {error.message()}") from error
        return {tensor.name: answer.as_numpy(tensor.name) for tensor in self._signature.outputs}

    def close(self) -> None:
        self._client.close()
