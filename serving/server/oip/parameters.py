"""What requests of the Open Inference Protocol and their tensors say beside their data.

Known are the `timeout` of the schedule policy and those of binary tensors. Others are accepted and mean nothing,
but those that ask for something that would change the answer and is not offered.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_schedule_policy.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import Signature

NOT_OFFERED = {
    "classification": "the classification extension (class_count); sort the output in the client",
    "shared_memory_region": "shared memory; send the data with the request",
}
"""What stands behind parameters of tensors that cannot be passed over in silence."""


def parameters_of(holder: Mapping[str, Any], what: str) -> Mapping[str, object]:
    """The parameters of an object of JSON. Raises `InvalidRequestError`."""
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(
            f"{what}: expected parameters to be an object, got {type(parameters).__name__}"
        )
    return parameters


def check_offered(parameters: Mapping[str, object], kind: str, name: str) -> None:
    """Raise `InvalidRequestError` where a tensor's parameters ask for what this server has not."""
    for parameter, extension in NOT_OFFERED.items():
        if parameter in parameters:
            raise InvalidRequestError(f"{kind} {quote(name)}: this server does not offer {extension}")


def check_count(outputs: int, signature: Signature) -> None:
    """Raise `InvalidRequestError` where more outputs are asked for than there are."""
    if outputs > len(signature.outputs):
        raise InvalidRequestError(
            f"expected each of the outputs {', '.join(signature.output_names)} to be asked for once at most, "
            f"got {outputs} outputs"
        )


def timeout_seconds(parameters: Mapping[str, object]) -> float | None:
    """The request's time limit: `timeout` is in microseconds, 0 for none. Raises `InvalidRequestError`."""
    timeout = parameters.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise InvalidRequestError(
            f"expected timeout to be a number of microseconds, 0 for none, got {quote(timeout)}"
        )
    return timeout / 1e6 if timeout else None
