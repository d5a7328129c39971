"""Clients of other servers, by an address such as `oip+http://localhost:8000/v2/models/m` or `tfs+grpc://host:8500/m`.

The signature is read from the server's metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.signature import BATCH, Arrays, Signature, Tensor
from serving.targets import open_inference_client as oip
from serving.targets import tf_serving_client as tfs
from serving.targets.base import Client, TargetError
from serving.targets.http import HttpConnection

ADDRESS = re.compile(
    r"(?P<scheme>[a-z+-]+)://(?P<host>\[[^\]]+\]|[^:/]+):(?P<port>\d+)/(?:v[12]/models/)?(?P<model>[^/:]+)/?"
)
DATATYPES = {"FP32": "float32", "INT32": "int32", "DT_FLOAT": "float32", "DT_INT32": "int32"}
"""Our dtypes by the datatypes of both protocols."""


class Address(NamedTuple):
    """A model of a server, by a protocol."""

    scheme: str
    host: str
    port: int
    model: str


class JsonClient:
    """A client of other servers' JSON: {<input>: lists} to `/<path>`, answered by {<output>: lists}."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._http, self._path = HttpConnection(host, port), f"/{path}"

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        answer = self._http.json("POST", self._path, {name: array.tolist() for name, array in inputs.items()})
        return {name: np.array(values, np.float32) for name, values in answer.items()}

    def close(self) -> None:
        self._http.close()


CLIENTS: dict[str, Callable[[str, int, str, Signature], Client]] = {
    "oip+http": oip.RestClient,
    "oip-binary+http": oip.BinaryRestClient,
    "oip+grpc": oip.GrpcClient,
    "tfs+http": tfs.RestClient,
    "tfs+grpc": lambda host, port, model, _: tfs.GrpcClient(host, port, model),
    "json+http": lambda host, port, path, _: JsonClient(host, port, path),
}
NEED_NO_SIGNATURE = ("tfs+grpc", "json+http")


def parse(url: str) -> Address:
    """Parse an address. Raises `TargetError`."""
    found = ADDRESS.fullmatch(url)
    if found is None or found["scheme"] not in CLIENTS:
        raise TargetError(
            f"{url!r} is no address of an endpoint: expected one of {', '.join(CLIENTS)}, as in "
            "oip+http://localhost:8000/v2/models/m or tfs+grpc://localhost:8500/m"
        )
    return Address(found["scheme"], found["host"].strip("[]"), int(found["port"]), found["model"])


def connect(url: str, signature: Signature | None = None) -> Client:
    """Return a client of an endpoint; the default of `signature` is read from its metadata.

    Raises `TargetError` if the metadata cannot be read, or have types that our clients lack.
    """
    at = parse(url)
    if signature is None:
        signature = Signature((), ()) if at.scheme in NEED_NO_SIGNATURE else _signature(at)
    return CLIENTS[at.scheme](at.host, at.port, at.model, signature)


def _signature(at: Address) -> Signature:
    """Return the signature in the server's metadata."""
    document = _metadata(at)
    kinds: list[tuple[Tensor, ...]] = []
    try:
        if at.scheme == "tfs+http":
            document = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
        for kind in ("inputs", "outputs"):
            if at.scheme == "tfs+http":
                described = [
                    (name, own["dtype"], [one["size"] for one in own["tensor_shape"].get("dim", [])])
                    for name, own in document[kind].items()
                ]
            else:
                described = [(own["name"], own["datatype"], own["shape"]) for own in document[kind]]
            kinds.append(tuple(_tensor(*one) for one in described))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(
            f"{at.model} at {at.host}:{at.port} has metadata of another form: {error!r}"
        ) from None
    return Signature(*kinds)


def _metadata(at: Address) -> Any:  # noqa: ANN401
    if at.scheme != "oip+grpc":
        path = f"/v1/models/{at.model}/metadata" if at.scheme == "tfs+http" else f"/v2/models/{at.model}"
        with closing(HttpConnection(at.host, at.port)) as connection:
            return connection.json("GET", path)
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(f"{at.host}:{at.port}") as client:
        try:
            return client.get_model_metadata(at.model, as_json=True)
        except triton.InferenceServerException as error:
            raise TargetError(f"{at.model} at {at.host}:{at.port} does not answer: {error}") from None


def _tensor(name: str, datatype: str, shape: Sequence[Any]) -> Tensor:
    if datatype not in DATATYPES:
        raise TargetError(f"{name} is of type {datatype}: our clients know {', '.join(DATATYPES)}")
    # Free dimensions have names.
    names = [BATCH, *(f"dimension{place}" for place in range(1, len(shape)))]
    sizes = (name if int(size) == -1 else int(size) for name, size in zip(names, shape, strict=False))
    return Tensor(name, DATATYPES[datatype], tuple(sizes))
