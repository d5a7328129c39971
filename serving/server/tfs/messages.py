"""What TensorFlow Serving's protobuf messages ask of a model's signatures, and how they describe those."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from serving.server.dataplane import Call
from serving.server.errors import FailedPreconditionError, InvalidRequestError, UnimplementedError, quote
from serving.server.repository.versions import Version
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signature, Signatures
from serving.server.tfs.examples import CLASSIFY, REGRESS, signature_for
from serving.server.tfs.model_access import ModelSpec
from serving.server.tfs.tensors import ENUMS, from_proto


def predict_call(request: Any, signatures: Signatures, max_bytes: int) -> Call:  # noqa: ANN401 - a PredictRequest
    """What a PredictRequest asks of a version. Raises `InvalidRequestError`, or another `ServerError`."""
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if key not in signatures:
        known = ", ".join(sorted(signatures))
        raise FailedPreconditionError(f"the model has no signature {quote(key)}; it has: {known}")
    inputs = {name: from_proto(name, proto, max_bytes) for name, proto in request.inputs.items()}
    return Call(inputs, tuple(request.output_filter), key, pictures=False)


def model_spec(spec: Any) -> ModelSpec:  # noqa: ANN401 - a ModelSpec's message
    """What a request is about."""
    return ModelSpec(spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label)


def check_tasks(request: Any) -> Any:  # noqa: ANN401 - a MultiInferenceRequest
    """The tasks of a request: at least one, all of one model. Raises `InvalidRequestError`."""
    if not request.tasks:
        raise InvalidRequestError("expected at least one task, got none")
    names = {task.model_spec.name for task in request.tasks}
    if "" in names:
        raise InvalidRequestError("expected a model's name in the ModelSpec of each task, got none")
    if len(names) > 1:
        raise InvalidRequestError(f"expected tasks of one model, got {quote(', '.join(sorted(names)))}")
    return request.tasks


def check_signatures(tasks: Any, signatures: Signatures, checked: bool) -> list[str]:  # noqa: ANN401 - see check_tasks
    """The signature of each task, no two the same. Raises `InvalidRequestError` or `UnimplementedError`."""
    keys: list[str] = []
    for task in tasks:
        if task.method_name not in (CLASSIFY, REGRESS):
            raise UnimplementedError(
                f"expected tasks by {CLASSIFY} or {REGRESS}, got {quote(task.method_name)}"
            )
        key = signature_for(signatures, task.method_name, task.model_spec.signature_name, checked)
        if key in keys:
            raise InvalidRequestError(f"expected tasks by different signatures, got {key} twice")
        keys.append(key)
    if len({signatures[key].inputs[0].dtype for key in keys}) > 1:
        raise InvalidRequestError("expected signatures that all take the same input, got different dtypes")
    return keys


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
