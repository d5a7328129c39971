"""Servers that Tandem did not start, by their address: `oip+http://localhost:8000/v2/models/m`, `tfs+grpc://host:8500/m`.

The signature is read from the server's own metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.signature import BATCH, Arrays, Signature, Tensor
from serving.targets.base import Client, TargetError
from serving.targets.http import HttpConnection

SCHEMES = ("oip+http", "oip-binary+http", "oip+grpc", "tfs+http", "tfs+grpc", "json+http")
ADDRESS = re.compile(
    r"(?P<scheme>[a-z+-]+)://(?P<host>\[[^\]]+\]|[^:/]+):(?P<port>\d+)/(?:v[12]/models/)?(?P<model>[^/:]+)/?"
)
DATATYPES = {"FP32": "float32", "INT32": "int32", "DT_FLOAT": "float32", "DT_INT32": "int32"}
"""The names of both protocols for what the clients send."""


@dataclass(frozen=True)
class Address:
    """A model behind a protocol of a server."""

    scheme: str
    host: str
    port: int
    model: str


def parse(url: str) -> Address:
    """Read an address. Raises `TargetError`."""
    found = ADDRESS.fullmatch(url)
    if found is None or found["scheme"] not in SCHEMES:
        raise TargetError(
            f"{url!r} is no address of an endpoint: expected one of {', '.join(SCHEMES)}, as in "
            "oip+http://localhost:8000/v2/models/m or tfs+grpc://localhost:8500/m"
        )
    return Address(found["scheme"], found["host"].strip("[]"), int(found["port"]), found["model"])


def connect(url: str, signature: Signature | None = None) -> Client:
    """A client of the endpoint, which tells its signature where none is given.

    Raises `TargetError` where its metadata cannot be read or are beyond our clients.
    """
    from serving.targets import open_inference_client as oip
    from serving.targets import tf_serving_client as tfs

    at = parse(url)
    if at.scheme == "tfs+grpc":
        return tfs.GrpcClient(at.host, at.port, at.model)
    if at.scheme == "json+http":
        return JsonClient(at.host, at.port, at.model)
    signature = signature or _signature(at)
    if at.scheme == "tfs+http":
        return tfs.RestClient(at.host, at.port, at.model, signature)
    kinds: dict[str, Callable[[str, int, str, Signature], Client]] = {
        "oip+http": oip.RestClient,
        "oip-binary+http": oip.BinaryRestClient,
        "oip+grpc": oip.GrpcClient,
    }
    return kinds[at.scheme](at.host, at.port, at.model, signature)


class JsonClient:
    """Servers with a JSON of their own: {<input>: lists} to `/<path>`, which answers {<output>: lists}."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._http, self._path = HttpConnection(host, port), f"/{path}"

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Raises `TargetError` with what the endpoint answered."""
        answer = self._http.json("POST", self._path, {name: array.tolist() for name, array in inputs.items()})
        return {name: np.array(values, np.float32) for name, values in answer.items()}

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def _signature(at: Address) -> Signature:
    if at.scheme == "oip+grpc":
        return _of_open_inference(_over_grpc(at))
    connection = HttpConnection(at.host, at.port)
    try:
        if at.scheme == "tfs+http":
            document = connection.json("GET", f"/v1/models/{at.model}/metadata")
            return _of_tf_serving(document["metadata"]["signature_def"]["signature_def"]["serving_default"])
        return _of_open_inference(connection.json("GET", f"/v2/models/{at.model}"))
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(
            f"{at.model} at {at.host}:{at.port} has metadata of another form: {error!r}"
        ) from None
    finally:
        connection.close()


def _over_grpc(at: Address) -> Mapping[str, Any]:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(f"{at.host}:{at.port}") as client:
        try:
            document: Mapping[str, Any] = client.get_model_metadata(at.model, as_json=True)
        except triton.InferenceServerException as error:
            raise TargetError(f"{at.model} at {at.host}:{at.port} does not answer: {error}") from None
        return document


def _of_open_inference(document: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        tuple(_tensor(one["name"], one["datatype"], one["shape"]) for one in document[kind])
        for kind in ("inputs", "outputs")
    )
    return Signature(inputs, outputs)


def _of_tf_serving(definition: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        tuple(
            _tensor(
                name, own["dtype"], [dimension["size"] for dimension in own["tensor_shape"].get("dim", [])]
            )
            for name, own in definition[kind].items()
        )
        for kind in ("inputs", "outputs")
    )
    return Signature(inputs, outputs)


def _tensor(name: str, datatype: str, shape: Sequence[Any]) -> Tensor:
    if datatype not in DATATYPES:
        raise TargetError(f"{name} is of type {datatype}: our clients know {', '.join(DATATYPES)}")
    sizes: list[int | str] = [int(size) for size in shape]
    # A free dimension has a name.
    named = [
        size if size != -1 else (BATCH if place == 0 else f"dimension{place}")
        for place, size in enumerate(sizes)
    ]
    return Tensor(name, DATATYPES[datatype], tuple(named))
