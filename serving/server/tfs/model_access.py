"""Models, versions and labels in TensorFlow Serving's requests; their status and metadata."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, NotFoundError, UnavailableError, quote
from serving.server.metrics import RequestRecord
from serving.server.repository.versions import Version
from serving.server.tfs.tensors import ENUMS


def lease(plane: DataPlane, record: RequestRecord, protocol: str, operation: str, spec: Any) -> Version:
    """As `DataPlane.lease`, for a ModelSpec. A version that did not load is a `NotFoundError`, as in the original."""
    if not spec.name:
        raise InvalidRequestError("expected a model's name in the ModelSpec, got none")
    record.operation = operation
    try:
        return plane.lease(record, protocol, spec.name, _number(spec), spec.version_label)
    except UnavailableError as error:
        if not plane.models.started:
            raise
        raise NotFoundError(str(error)) from error


def _number(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def statuses(plane: DataPlane, spec: Any) -> Any:
    """Return a GetModelStatusResponse for the versions of a ModelSpec, newest first.

    Raises `NotFoundError` or, for an unknown label, `InvalidRequestError`.
    """
    model = plane.models.ended.get(spec.name) or plane.models.model(spec.name)
    number = model.number_of(spec.version_label) if spec.version_label else _number(spec)
    response = GetModelStatusResponse()
    for version, status in sorted(model.statuses.items(), reverse=True):
        if number in (None, version):
            entry = response.model_version_status.add(version=version, state=status.state.value)
            entry.status.error_code = status.fault.code.value[0] if status.fault else 0
            entry.status.error_message = str(status.fault) if status.fault else ""
    if not response.model_version_status:
        which = "any version" if number is None else f"version {number}"
        raise NotFoundError(f"could not find {which} of model {quote(spec.name)}")
    return response


def signature_defs(version: Version) -> Any:
    """Return the SignatureDefMap of the SavedModel, or one made from the signatures."""
    made = SignatureDefMap()
    saved = getattr(version.servable, "definitions", None)
    for key, definition in (saved or {}).items():
        made.signature_def[key].CopyFrom(definition)
    for key, signature in {} if saved else version.signatures.items():
        definition = made.signature_def[key]
        definition.method_name = "tensorflow/serving/predict"
        for specs, infos in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
            for spec in specs:
                shape = None if spec.shape is None else [None if size < 0 else size for size in spec.shape]
                infos[spec.name].name = spec.name
                infos[spec.name].dtype = ENUMS[spec.dtype]
                infos[spec.name].tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return made
