"""Numbers of JSON as tensors, for every protocol that reads JSON."""

from __future__ import annotations

import struct
from array import array as packed
from itertools import chain
from typing import Any

import numpy as np

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import Array

MAX_DIMENSIONS = 32
WORDS = {
    "bool": "booleans",
    "dict": "objects",
    "float": "fractions",
    "int": "integers",
    "NoneType": "null",
    "str": "strings",
}
"""What JSON calls Python's types."""


def numbers(name: str, kind: str, data: object) -> Array:
    """Nested lists of JSON numbers as an array of dtype `kind`; nothing is rounded to an integer in silence.

    Raises `InvalidRequestError` where they are ragged or hold something else than such numbers.
    """
    wanted = np.dtype(kind)
    flat, shape = flatten(name, data)
    try:
        found = _pack(flat, wanted).reshape(shape)
    except (TypeError, OverflowError) as error:
        raise InvalidRequestError(_misfit(name, wanted, flat, error)) from None
    if found.size and wanted.kind in "iu" and wanted.itemsize < 8:
        limits, least, most = np.iinfo(wanted), found.min(), found.max()
        if least < limits.min or most > limits.max:
            raise InvalidRequestError(_beyond(name, wanted, least, most))
    with np.errstate(over="ignore"):
        return found.astype(wanted, copy=False)


def flatten(name: str, data: object) -> tuple[list[Any], tuple[int, ...]]:
    """Nested lists as one list and their shape: it is packed several times as fast.

    Raises `InvalidRequestError` where their lengths differ.
    """
    if not isinstance(data, list):
        return [data], ()
    shape = [len(data)]
    while data and isinstance(data[0], list):
        widths = {len(row) if isinstance(row, list) else None for row in data}
        if len(widths) > 1 or len(shape) == MAX_DIMENSIONS:
            raise InvalidRequestError(
                f"input {quote(name)}: expected lists of equal lengths, at most {MAX_DIMENSIONS} levels deep"
            )
        shape.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(shape)


def found_among(flat: list[Any]) -> str:
    """What came, for the message about a value that is of another kind."""
    kinds = {type(value) for value in flat}
    if list in kinds:
        return "in lists of equal lengths, got ragged ones"
    return "got " + ", ".join(sorted(WORDS.get(kind.__name__, kind.__name__) for kind in kinds))


def _pack(flat: list[Any], wanted: np.dtype[Any]) -> Array:
    """Numbers as int64, uint64, float64 or bool. Raises `TypeError` where others are among them.

    numpy would find the dtype by itself, but takes large integers for float64, and a long string next to many
    numbers for as many long strings.
    """
    kinds = set(map(type, flat))
    if wanted.kind == "b":
        if not kinds <= {bool}:
            raise TypeError
        return np.array(flat, bool)
    if bool in kinds:
        raise TypeError
    if wanted == np.uint64:
        return np.frombuffer(packed("Q", flat), np.uint64)
    if wanted.kind in "iu":
        return np.frombuffer(packed("q", flat), np.int64)
    try:  # Which is three times as fast for floats as `packed`.
        return np.frombuffer(struct.pack(f"{len(flat)}d", *flat), np.float64)
    except struct.error:
        raise TypeError from None


def _misfit(name: str, wanted: np.dtype[Any], flat: list[Any], error: Exception) -> str:
    """What to say of values that cannot be packed."""
    kinds = set(map(type, flat))
    # What is beyond 64 bits comes as a float.
    if wanted.kind in "iu" and kinds <= {int, float}:
        beyond = [value for value in flat if isinstance(value, int) or abs(value) >= 2**63]
        if len(beyond) == len(flat):
            return _beyond(name, wanted, min(flat), max(flat))
    if isinstance(error, OverflowError):
        return f"input {quote(name)}: expected numbers of dtype {wanted.name}, got larger ones"
    expected = {"b": "booleans", "i": "integers", "u": "integers"}.get(wanted.kind, "numbers")
    return f"input {quote(name)}: expected {expected} of dtype {wanted.name}, {found_among(flat)}"


def _beyond(name: str, wanted: np.dtype[Any], least: object, most: object) -> str:
    limits = np.iinfo(wanted)
    return (
        f"input {quote(name)}: expected {wanted.name}, {limits.min} to {limits.max}, "
        f"got {quote(least)} to {quote(most)}"
    )
