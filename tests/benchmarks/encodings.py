"""One picture as a request of each protocol, and the answer back as arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

Floats = NDArray[np.float32]
Answers = dict[str, Floats]
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Body:
    """What is sent: a body, and what the HTTP headers add to it."""

    content: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Protocol:
    """How a picture is asked for: `path` has {name} for the model's name; none of them means gRPC."""

    name: str
    path: str
    encode: Callable[[str, str, Floats], Body]
    """Of the model's name, the input's name and the pictures [N, H, W, C]."""
    decode: Callable[[bytes, Mapping[str, str]], Answers]
    """Of the body and the headers, whose names are in lower case."""


def _tensor(name: str, images: Floats) -> dict[str, object]:
    return {"name": name, "datatype": "FP32", "shape": list(images.shape)}


def _encode_json(_model: str, name: str, images: Floats) -> Body:
    tensor = _tensor(name, images) | {"data": images.ravel().tolist()}
    return Body(json.dumps({"inputs": [tensor]}).encode())


def _encode_binary(_model: str, name: str, images: Floats) -> Body:
    raw = images.astype("<f4").tobytes()
    tensor = _tensor(name, images) | {"parameters": {"binary_data_size": len(raw)}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Body(header + raw, "application/octet-stream", {HEADER_LENGTH: str(len(header))})


def _encode_grpc(model: str, name: str, images: Floats) -> Body:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=images.shape)
    raw = [images.astype("<f4").tobytes()]
    return Body(
        pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=raw).SerializeToString()
    )


def _encode_rows(_model: str, _name: str, images: Floats) -> Body:
    return Body(json.dumps({"instances": images.tolist()}).encode())


def _encode_own(_model: str, _name: str, images: Floats) -> Body:
    return Body(json.dumps({"image": images.tolist()}).encode())


def _decode_oip(body: bytes, headers: Mapping[str, str]) -> Answers:
    end = int(headers.get(HEADER_LENGTH, len(body)))
    answers = {}
    for output in json.loads(body[:end])["outputs"]:
        if "data" in output:
            values = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(body[end : end + size], "<f4")
            end += size
        answers[output["name"]] = values.reshape(output["shape"])
    return answers


def _decode_grpc(body: bytes, _headers: Mapping[str, str]) -> Answers:
    response = pb.ModelInferResponse.FromString(body)
    answers = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[index], "<f4")
        else:
            values = np.array(output.contents.fp32_contents, np.float32)
        answers[output.name] = values.reshape(output.shape)
    return answers


def _decode_rows(body: bytes, _headers: Mapping[str, str]) -> Answers:
    rows = json.loads(body)["predictions"]
    return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


def _decode_own(body: bytes, _headers: Mapping[str, str]) -> Answers:
    return {name: np.array(values, np.float32) for name, values in json.loads(body).items()}


JSON = Protocol("JSON", "/v2/models/{name}/infer", _encode_json, _decode_oip)
BINARY = Protocol("binary", "/v2/models/{name}/infer", _encode_binary, _decode_oip)
GRPC = Protocol("gRPC", "", _encode_grpc, _decode_grpc)
ROWS = Protocol("row JSON", "/v1/models/{name}:predict", _encode_rows, _decode_rows)
OWN = Protocol("own JSON", "/predict", _encode_own, _decode_own)
OIP = (JSON, BINARY, GRPC)
