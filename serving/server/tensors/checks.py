"""Whether a request's signature, inputs and tensors are those of a model."""

from __future__ import annotations

import numpy as np

from serving.server.errors import InvalidRequestError, ServerError, quote
from serving.server.tensors.signature import (
    Array,
    Signature,
    Signatures,
    Tensors,
    TensorSpec,
    dtype_of,
    is_floating,
)


def signature_of(
    signatures: Signatures, key: str, error: type[ServerError] = InvalidRequestError
) -> Signature:
    """A signature by its key. Raises `error`."""
    if key not in signatures:
        raise error(f"the model has no signature {quote(key)}; it has: {', '.join(sorted(signatures))}")
    return signatures[key]


def complete(signature: Signature, given: Tensors) -> Tensors:
    """The inputs given, and the defaults of others. Raises `InvalidRequestError` where their names do not fit."""
    inputs = signature.defaults | given
    if not signature.required <= inputs.keys() <= signature.names:
        names = signature.input_names
        raise InvalidRequestError(
            f"expected input{'s' if len(names) > 1 else ''} {', '.join(names) or '(none)'}, "
            f"got {quote(', '.join(inputs)) if inputs else 'none'}"
        )
    return inputs


def check(spec: TensorSpec, array: Array, finite: bool = False) -> None:
    """Raise `InvalidRequestError` unless the tensor has the dtype and the shape of its spec.

    `finite`: it must have some rows, and no NaN and no infinity in them, too.
    """
    if array.dtype is not spec.numpy and dtype_of(array) != spec.dtype:
        raise InvalidRequestError(f"input {spec.name!r}: expected dtype {spec.dtype}, got {dtype_of(array)}")
    shape = list(array.shape)
    if not spec.admits(array.shape):
        expected = f"shape {list(spec.shape or ())} (-1: any)"
        raise InvalidRequestError(f"input {spec.name!r}: expected {expected}, got {shape}")
    if finite and array.size == 0:
        raise InvalidRequestError(f"input {spec.name!r}: expected at least one row, got shape {shape}")
    if finite and is_floating(array) and not np.isfinite(array).all():
        raise InvalidRequestError(f"input {spec.name!r}: expected finite numbers, got NaN or infinity")
