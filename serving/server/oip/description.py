"""Metadata, configuration, index and statistics of the Open Inference Protocol and its extensions.

Each is a JSON document with the names of the protocol's messages: REST sends it, gRPC converts it to the message.
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serving.server import VERSION
from serving.server.dataplane import DataPlane
from serving.server.errors import ForbiddenError, InvalidRequestError, quote
from serving.server.metrics import Duration
from serving.server.oip import codec
from serving.server.repository.versions import State, Status, Version
from serving.server.tensors.signature import Signature, TensorSpec, default_key

Document = dict[str, Any]

EXTENSIONS = "binary_tensor_data model_configuration model_repository parameters schedule_policy statistics"
SERVER: Document = {"name": "tandem", "version": VERSION, "extensions": EXTENSIONS.split()}

STATES = {State.START: "LOADING", State.AVAILABLE: "READY", State.END: "UNAVAILABLE"}
"""The protocol's names of states, where they differ."""


def default(version: Version) -> tuple[str, Signature]:
    """Return the signature that the protocol calls, and its key. Raises `InvalidRequestError` if there is none."""
    if not version.signatures:
        raise InvalidRequestError(f"model {version.model} has no signature to call")
    key = default_key(version.signatures)
    return key, version.signatures[key]


def readiness(plane: DataPlane, name: str, number: int | None) -> Document:
    """Return the version that is ready. Raises `NotFoundError` or `UnavailableError`."""
    version = plane.models.model(name).version(number)
    return {"name": name, "version": str(version.number), "ready": True}


def metadata(plane: DataPlane, name: str, number: int | None) -> Document:
    """Return names, datatypes and shapes of a model; `versions` are the loaded ones.

    `properties` has the outputs that are no tensors.
    """
    model = plane.models.model(name)
    _, signature = default(model.version(number))
    document: Document = {
        "name": name,
        "versions": [str(loaded) for loaded in sorted(model.loaded)],
        "platform": plane.platform,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }
    if signature.left_out:
        document["properties"] = {"left_out": ", ".join(signature.left_out)}
    return document


PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorflow": "tensorflow_savedmodel"}
"""Triton's names."""


def configuration(plane: DataPlane, name: str, number: int | None) -> Document:
    """Return Triton's ModelConfig of a model: if it is batched, `dims` are without the batch."""
    version = plane.models.model(name).version(number)
    _, signature = default(version)
    batched = version.batched and signature.batched
    return {
        "name": name,
        "platform": PLATFORMS.get(plane.platform, plane.platform),
        "backend": plane.platform,
        "max_batch_size": plane.max_rows if batched else 0,
        "input": [_configured(spec, batched) for spec in signature.inputs],
        "output": [_configured(spec, batched) for spec in signature.outputs],
    }


def index(entries: Iterable[tuple[str, int | None, Status]], ready: bool) -> list[Document]:
    """Return the repository's index, of all versions or the ready ones."""
    return [
        {
            "name": model,
            "version": "" if version is None else str(version),
            "state": STATES.get(status.state, status.state.value),
            "reason": str(status.fault or ""),
        }
        for model, version, status in entries
        if not ready or status.state is State.AVAILABLE
    ]


def statistics(plane: DataPlane, name: str, number: int | None) -> Document:
    """Return statistics of a version, of a model's versions (no number), or of all models ("")."""
    versions = [
        version
        for model in ([plane.models.model(name)] if name else plane.models)
        for version in (model.loaded.values() if number is None else [model.version(number)])
    ]
    return {"model_stats": [_statistics(version) for version in versions]}


def check_change(allowed: bool, parameters: Mapping[str, object]) -> None:
    """Raise `ForbiddenError` if loading and unloading is not allowed.

    Raises `InvalidRequestError` if the request has a configuration or files: these come from the repository only.
    """
    if not allowed:
        raise ForbiddenError("loading and unloading need the server's flag --repository-control")
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise InvalidRequestError(
                f"the parameter {quote(name)} is refused: models and their configuration come from the server's "
                "repository only; publish a version there, then load the model"
            )


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": codec.name_of(spec.dtype), "shape": list(_shape(spec))}


def _configured(spec: TensorSpec, batched: bool) -> Document:
    datatype = codec.DATATYPES.get(spec.dtype, "INVALID").replace("BYTES", "STRING")
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(_shape(spec)[batched:])}


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return (-1,) if spec.shape is None else spec.shape


def _statistics(version: Version) -> Document:
    sums = version.statistics
    none = _duration(Duration())
    copies = {"compute_input": none, "compute_output": none}  # part of a run here
    return {
        "name": version.model,
        "version": str(version.number),
        "last_inference": int(sums.last * 1000),
        "inference_count": sum(rows * run.count for rows, run in sums.runs.items()),
        "execution_count": sum(run.count for run in sums.runs.values()),
        "inference_stats": {
            "success": _duration(sums.success),
            "fail": _duration(sums.fail),
            "queue": _duration(sums.queue),
            "compute_infer": _duration(sums.compute),
            **copies,
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _duration(run), **copies}
            for rows, run in sorted(sums.runs.items())
        ],
    }


def _duration(duration: Duration) -> Document:
    return {"count": duration.count, "ns": round(duration.seconds * 1e9)}
