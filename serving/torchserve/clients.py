"""Clients of TorchServe's inference: JSON and .npy over REST, .npy over gRPC."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import urllib3
from numpy.typing import NDArray

from models.signature import Arrays, Signature, batch_size
from serving.settings import Settings
from serving.targets.base import TargetError, served_signature

TIMEOUT = 30.0


def json_body(inputs: Arrays, batched: bool = True) -> bytes:
    """TF Serving's row form; its columns where a model is not batched."""
    arrays = {name: np.array(array, order="C") for name, array in inputs.items()}
    if not batched:
        values = {name: array if array.ndim else array.item() for name, array in arrays.items()}
        return orjson.dumps({"inputs": values}, option=orjson.OPT_SERIALIZE_NUMPY)
    (first, *others) = arrays
    instances: object = arrays[first]
    if others:
        instances = [
            {name: array[row] for name, array in arrays.items()} for row in range(batch_size(inputs))
        ]
    return orjson.dumps({"instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY)


def npy_body(inputs: Arrays, batched: bool = True) -> bytes:
    """The only input as an .npy file; JSON where there are several."""
    if len(inputs) > 1:
        return json_body(inputs, batched)
    file = io.BytesIO()
    np.save(file, np.array(next(iter(inputs.values())), order="C"), allow_pickle=False)
    return file.getvalue()


def outputs(answer: bytes, signature: Signature) -> dict[str, NDArray[Any]]:
    """Read an answer. Raises `TargetError` with the error that it holds."""
    try:
        if not signature.batched:
            values = orjson.loads(answer)["outputs"]
            return {t.name: np.array(values[t.name], t.dtype) for t in signature.outputs}
        rows = orjson.loads(answer)["predictions"]
        return {t.name: np.array([row[t.name] for row in rows], t.dtype) for t in signature.outputs}
    except (ValueError, KeyError, TypeError):
        raise TargetError(f"torchserve answered {answer[:300].decode(errors='replace')}") from None


class RestClient:
    """One kept connection to `/predictions/<model>`; the body is JSON, or .npy where `npy`."""

    def __init__(self, settings: Settings, npy: bool = False) -> None:
        self.path = f"/predictions/{settings.model}"
        self.signature = served_signature(settings, "torchserve")
        self.pool = urllib3.HTTPConnectionPool(
            settings.host, settings.torchserve_rest_port, timeout=TIMEOUT, retries=False
        )
        self.encode = npy_body if npy else json_body
        self.headers = {"Content-Type": "application/octet-stream" if npy else "application/json"}

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Raises `TargetError` with what the endpoint answered."""
        try:
            answer = self.pool.request(
                "POST", self.path, self.encode(inputs, self.signature.batched), headers=self.headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise TargetError(
                f"torchserve at {self.pool.host}:{self.pool.port} does not answer: {error}"
            ) from error
        if answer.status != 200:
            raise TargetError(
                f"torchserve answered {answer.status}: {answer.data[:300].decode(errors='replace')}"
            )
        return outputs(answer.data, self.signature)

    def close(self) -> None:
        """Close the connection."""
        self.pool.close()


class GrpcClient:
    """`org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions` with an .npy body as `data`."""

    METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

    def __init__(self, settings: Settings) -> None:
        import grpc

        self.model = settings.model
        self.signature = served_signature(settings, "torchserve")
        self.channel = grpc.insecure_channel(f"{settings.host}:{settings.torchserve_grpc_port}")
        self.request, self.response = _messages()
        self.call = self.channel.unary_unary(
            self.METHOD,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Raises `TargetError` with what the endpoint answered."""
        import grpc

        request = self.request(
            model_name=self.model, input={"data": npy_body(inputs, self.signature.batched)}
        )
        try:
            answer = self.call(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            # TorchServe puts the name of a Java exception on a second line.
            message = (error.details() or "").split("\n")[0]
            raise TargetError(f"torchserve answered {error.code().name} over gRPC: {message}") from error
        return outputs(answer.prediction, self.signature)

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
