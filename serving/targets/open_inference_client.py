"""Clients of the Open Inference Protocol v2.

https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import json

import numpy as np

from serving.targets.base import Images, Outputs, TargetError
from serving.targets.http import Answer, HttpConnection

OUTPUTS = ("logits", "probabilities")


class RestClient:
    """The protocol's plain JSON form."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self._http = HttpConnection(host, port)
        self._path = f"/v2/models/{model}/infer"

    def predict(self, images: Images) -> Outputs:
        answer = self._http.json("POST", self._path, inference_request(images))
        arrays = {
            output["name"]: np.array(output["data"], np.float32).reshape(output["shape"])
            for output in answer["outputs"]
        }
        return Outputs(arrays["logits"], arrays["probabilities"])

    def close(self) -> None:
        self._http.close()


def inference_request(images: Images) -> dict[str, object]:
    """The JSON body that asks for both outputs."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.ravel().tolist(),
    }
    return {"inputs": [tensor], "outputs": [{"name": name} for name in OUTPUTS]}


class BinaryRestClient:
    """The binary tensor extension: a JSON header, then the tensors' raw little-endian bytes."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self._http = HttpConnection(host, port)
        self._path = f"/v2/models/{model}/infer"

    def predict(self, images: Images) -> Outputs:
        raw = images.astype("<f4").tobytes()
        size = {"binary_data_size": len(raw)}
        tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "parameters": size}
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
        header = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        answer = self._http.request(
            "POST", self._path, header + raw, {"Inference-Header-Content-Length": str(len(header))}
        )
        return self._parse(answer)

    def _parse(self, answer: Answer) -> Outputs:
        end = int(answer.headers["inference-header-content-length"])
        header, arrays = json.loads(answer.body[:end]), {}
        for output in header["outputs"]:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(answer.body[end : end + size], "<f4").reshape(output["shape"])
            arrays[output["name"]], end = array, end + size
        return Outputs(arrays["logits"], arrays["probabilities"])

    def close(self) -> None:
        self._http.close()


class GrpcClient:
    """gRPC, by Triton's client library."""

    def __init__(self, host: str, port: int, model: str) -> None:
        import tritonclient.grpc as triton

        self._triton, self._model = triton, model
        self._client = triton.InferenceServerClient(f"{host}:{port}")

    def predict(self, images: Images) -> Outputs:
        tensor = self._triton.InferInput("image", list(images.shape), "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(images, np.float32))
        wanted = [self._triton.InferRequestedOutput(name) for name in OUTPUTS]
        try:
            answer = self._client.infer(self._model, [tensor], outputs=wanted, client_timeout=30)
        except self._triton.InferenceServerException as error:
            raise TargetError(f"gRPC answered {error.status()}: {error.message()}") from error
        return Outputs(answer.as_numpy("logits"), answer.as_numpy("probabilities"))

    def close(self) -> None:
        self._client.close()
