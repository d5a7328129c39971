"""Clients of TorchServe's inference: JSON and .npy over REST, .npy over gRPC."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import urllib3

from serving.settings import Settings
from serving.targets.base import Images, Outputs, TargetError

TIMEOUT = 30.0


def json_body(images: Images) -> bytes:
    """TF Serving's row form."""
    pictures = np.ascontiguousarray(images, np.float32)
    return orjson.dumps({"instances": pictures}, option=orjson.OPT_SERIALIZE_NUMPY)


def npy_body(images: Images) -> bytes:
    """The pictures as an .npy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(images, np.float32), allow_pickle=False)
    return file.getvalue()


def outputs(answer: bytes) -> Outputs:
    """Read an answer. Raises `TargetError` with the error that it holds."""
    try:
        document = orjson.loads(answer)
        predictions = document["predictions"]
    except (ValueError, KeyError, TypeError):
        raise TargetError(f"torchserve answered {answer[:300].decode(errors='replace')}") from None
    logits, probabilities = (
        np.array([prediction[name] for prediction in predictions], np.float32)
        for name in ("logits", "probabilities")
    )
    return Outputs(logits, probabilities)


class RestClient:
    """One kept connection to `/predictions/<model>`; the body is JSON, or .npy where `npy`."""

    def __init__(self, settings: Settings, npy: bool = False) -> None:
        self.path = f"/predictions/{settings.model}"
        self.pool = urllib3.HTTPConnectionPool(
            settings.host, settings.torchserve_rest_port, timeout=TIMEOUT, retries=False
        )
        self.encode = npy_body if npy else json_body
        self.headers = {"Content-Type": "application/octet-stream" if npy else "application/json"}

    def predict(self, images: Images) -> Outputs:
        """Raises `TargetError` with what the endpoint answered."""
        try:
            answer = self.pool.request("POST", self.path, self.encode(images), headers=self.headers)
        except urllib3.exceptions.HTTPError as error:
            raise TargetError(
                f"torchserve at {self.pool.host}:{self.pool.port} does not answer: {error}"
            ) from error
        if answer.status != 200:
            raise TargetError(
                f"torchserve answered {answer.status}: {answer.data[:300].decode(errors='replace')}"
            )
        return outputs(answer.data)

    def close(self) -> None:
        """Close the connection."""
        self.pool.close()


class GrpcClient:
    """`org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions` with an .npy body as `data`."""

    METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

    def __init__(self, settings: Settings) -> None:
        import grpc

        self.model = settings.model
        self.channel = grpc.insecure_channel(f"{settings.host}:{settings.torchserve_grpc_port}")
        self.request, self.response = _messages()
        self.call = self.channel.unary_unary(
            self.METHOD,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )

    def predict(self, images: Images) -> Outputs:
        """Raises `TargetError` with what the endpoint answered."""
        import grpc

        request = self.request(model_name=self.model, input={"data": npy_body(images)})
        try:
            answer = self.call(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            # TorchServe puts the name of a Java exception on a second line.
            message = (error.details() or "").split("\n")[0]
            raise TargetError(f"torchserve answered {error.code().name} over gRPC: {message}") from error
        return outputs(answer.prediction)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


def _messages() -> tuple[Any, Any]:
    """PredictionsRequest and PredictionResponse of TorchServe's inference.proto, as far as we use them.

    TorchServe ships its .proto files inside its jar only, and compiled for Python nowhere.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    package = "org.pytorch.serve.grpc.inference"
    file = descriptor_pb2.FileDescriptorProto(
        name="tandem/torchserve.proto", package=package, syntax="proto3"
    )
    request = file.message_type.add(name="PredictionsRequest")
    request.field.add(name="model_name", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    request.field.add(name="model_version", number=2, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=kind.TYPE_MESSAGE,
        label=kind.LABEL_REPEATED,
        type_name=f".{package}.PredictionsRequest.InputEntry",
    )
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(name="prediction", number=1, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    classes = message_factory.GetMessages([file], pool=descriptor_pool.DescriptorPool())
    return classes[f"{package}.PredictionsRequest"], classes[f"{package}.PredictionResponse"]
