"""Whether a tensor fits its spec."""

from __future__ import annotations

import numpy as np

from serving.server.errors import InvalidRequestError
from serving.server.tensors.signature import Array, TensorSpec, dtype_of


def check(spec: TensorSpec, array: Array, finite: bool = False) -> None:
    """Raise `InvalidRequestError` unless the tensor has the dtype and the shape of its spec.

    `finite`: it must have some rows, and no NaN and no infinity in them, too.
    """
    if array.dtype is not spec.numpy and dtype_of(array) != spec.dtype:
        raise InvalidRequestError(f"input {spec.name!r}: expected dtype {spec.dtype}, got {dtype_of(array)}")
    if not spec.admits(array.shape):
        raise InvalidRequestError(
            f"input {spec.name!r}: expected shape {list(spec.shape or ())} (-1: any), got {list(array.shape)}"
        )
    if not finite:
        return
    if array.size == 0:
        raise InvalidRequestError(
            f"input {spec.name!r}: expected at least one row, got shape {list(array.shape)}"
        )
    if spec.floating and not np.isfinite(array).all():
        raise InvalidRequestError(f"input {spec.name!r}: expected finite numbers, got NaN or infinity")
