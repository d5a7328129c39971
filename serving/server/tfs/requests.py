"""What TensorFlow Serving's protobuf requests ask of a model's signatures, of one that serves or one that warms up."""

from __future__ import annotations

from typing import Any

from serving.server.dataplane import Call
from serving.server.errors import FailedPreconditionError, InvalidRequestError, UnimplementedError
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signatures
from serving.server.tfs.examples import CLASSIFY, REGRESS, signature_for
from serving.server.tfs.models import ModelSpec
from serving.server.tfs.tensors import from_proto


def predict_call(request: Any, signatures: Signatures, max_bytes: int) -> Call:  # noqa: ANN401 - a PredictRequest
    """What a PredictRequest asks of a version. Raises `InvalidRequestError`, or another `ServerError`."""
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if key not in signatures:
        has = ", ".join(sorted(signatures))
        raise FailedPreconditionError(f'Serving signature key "{key}" not found. The model has: {has}')
    outputs = tuple(request.output_filter)
    if len(set(outputs)) < len(outputs):
        raise InvalidRequestError(f"duplicate output tensor alias: {', '.join(outputs)}")
    signature = signatures[key]
    if not set(outputs) <= set(signature.output_names):
        unknown = set(outputs) - set(signature.output_names)
        raise InvalidRequestError(
            f"output tensor alias not found in signature: {_listed(unknown)} "
            f"Outputs expected to be in the set {{{_listed(set(signature.output_names))}}}."
        )
    known, given = {spec.name for spec in signature.inputs}, set(request.inputs)
    required = known - signature.defaults.keys()
    if not required <= given or len(given) > len(known):
        raise InvalidRequestError(
            f"input size does not match signature: {len(given)}!={len(known)} len({{{_listed(given)}}}) != "
            f"len({{{_listed(known)}}}). Sent extra: {{{_listed(given - known)}}}. "
            f"Missing but required: {{{_listed(required - given)}}}."
            if len(given) != len(known)
            else f"input tensor alias not found in signature: {_listed(given - known)}. "
            f"Inputs expected to be in the set {{{_listed(known)}}}."
        )
    inputs = {name: from_proto(name, proto, max_bytes) for name, proto in request.inputs.items()}
    return Call(signature.defaults | inputs, outputs, key, pictures=False, finite=False)


def _listed(names: set[str]) -> str:
    return ",".join(sorted(names))


def model_spec(spec: Any) -> ModelSpec:  # noqa: ANN401 - a ModelSpec's message
    """What a request is about."""
    return ModelSpec(spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label)


def check_tasks(request: Any) -> Any:  # noqa: ANN401 - a MultiInferenceRequest
    """The tasks of a request: at least one, all of one model. Raises `InvalidRequestError`."""
    if not request.tasks:
        raise InvalidRequestError("ModelSpec has no name specified: expected at least one task")
    names = {task.model_spec.name for task in request.tasks}
    if "" in names:
        raise InvalidRequestError("Found ModelSpec with an empty model name.")
    if len(names) > 1:
        raise InvalidRequestError(
            "All ModelSpecs in a MultiInferenceRequest must access the same model name, got: "
            + ", ".join(sorted(names))
        )
    return request.tasks


def check_signatures(tasks: Any, signatures: Signatures, checked: bool) -> list[str]:  # noqa: ANN401 - see check_tasks
    """The signature of each task, no two the same. Raises `InvalidRequestError` or `UnimplementedError`."""
    keys: list[str] = []
    for task in tasks:
        key = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if key in keys:
            raise InvalidRequestError(f"Duplicate evaluation of signature: {key}")
        if key not in signatures:
            raise InvalidRequestError(f"Requested signature not found in model graph: {key}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise UnimplementedError(f"Unsupported signature method_name: {task.method_name}")
        keys.append(signature_for(signatures, task.method_name, key, checked))
    if len({signatures[key].inputs[0].dtype for key in keys}) > 1:
        raise InvalidRequestError("Input tensor must be the same for all Signatures.")
    return keys
