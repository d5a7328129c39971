"""The signatures of a version as TensorFlow Serving's SignatureDefMap."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from serving.server.repository.versions import Version
from serving.server.tensors.signature import Signature
from serving.server.tfs.tensors import ENUMS


def signature_defs(version: Version) -> Any:  # noqa: ANN401 - a SignatureDefMap, whose package has no types
    """As the SavedModel has them, tensor names and all; for a model that is none, made from its signatures."""
    made = SignatureDefMap()
    saved = getattr(version.servable, "definitions", None)
    if saved is not None:
        for key, definition in saved.items():
            made.signature_def[key].CopyFrom(definition)
        return made
    for key, signature in version.signatures.items():
        _describe(signature, made.signature_def[key])
    return made


def _describe(signature: Signature, definition: Any) -> None:  # noqa: ANN401 - a SignatureDef
    definition.method_name = signature.method
    for specs, infos in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
        for spec in specs:
            info = infos[spec.name]
            info.name = spec.name
            info.dtype = ENUMS[spec.dtype]
            info.tensor_shape.unknown_rank = spec.shape is None
            for size in spec.shape or ():
                info.tensor_shape.dim.add().size = size
