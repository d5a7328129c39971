"""Numbers of JSON as tensors, for every front that reads JSON."""

from __future__ import annotations

from itertools import chain

import numpy as np

from serving.server.errors import InvalidRequestError
from serving.server.signature import Array

MAX_DIMENSIONS = 32

JSON_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
"""What numpy may find in JSON data, by the kind of dtype that is asked for."""


def numbers(name: str, kind: str, data: object) -> Array:
    """Nested lists of JSON numbers as an array of dtype `kind`; nothing is rounded to an integer in silence.

    Raises `InvalidRequestError` where the lists are ragged or hold something else than such numbers.
    """
    flat, shape = _flatten(name, data)
    try:
        array = np.array(flat)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"input {name!r}: expected lists of equal lengths, got {error}") from None
    wanted = np.dtype(kind)
    if array.size and array.dtype.kind not in JSON_KINDS[wanted.kind]:
        raise InvalidRequestError(
            f"input {name!r}: expected numbers of dtype {kind}, got {_kind_found(array)}"
        )
    if array.size and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidRequestError(
                f"input {name!r}: expected {kind}, {limits.min} to {limits.max}, got others"
            )
    with np.errstate(over="ignore"):
        return array.astype(wanted).reshape(shape)


def _flatten(name: str, data: object) -> tuple[object, tuple[int, ...]]:
    """Nested lists as one list and their shape: numpy reads it four times as fast."""
    if not isinstance(data, list):
        return data, ()
    shape = [len(data)]
    while data and isinstance(data[0], list):
        widths = {len(row) if isinstance(row, list) else None for row in data}
        if len(widths) > 1 or len(shape) == MAX_DIMENSIONS:
            raise InvalidRequestError(
                f"input {name!r}: expected lists of equal lengths, at most {MAX_DIMENSIONS} levels of them, got ragged"
            )
        shape.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(shape)


def _kind_found(array: Array) -> str:
    kinds = {"U": "strings", "S": "strings", "b": "booleans", "f": "fractions", "O": "mixed values or null"}
    return kinds.get(array.dtype.kind, str(array.dtype))
