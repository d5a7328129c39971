"""JSON numbers as tensors, for all protocols with JSON."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import Array

MAX_DIMENSIONS = 32
NAMES = {
    bool: "booleans",
    dict: "objects",
    float: "fractions",
    int: "integers",
    list: "lists",
    str: "strings",
}
BOOLEANS, INTEGERS, NUMBERS = {bool}, {int}, {int, float}


def numbers(name: str, kind: str, data: object) -> Array:
    """Return nested lists of JSON numbers as an array of dtype `kind`; fractions are never rounded to integers.

    Raises `InvalidRequestError` for ragged lists and for values that do not fit `kind`.
    """
    wanted = np.dtype(kind)
    flat, shape = flatten(name, data)
    # numpy would accept strings and booleans as numbers, and truncate fractions.
    accepted = BOOLEANS if wanted.kind == "b" else INTEGERS if wanted.kind in "iu" else NUMBERS
    if not accepted.issuperset(map(type, flat)):
        raise InvalidRequestError(f"input {quote(name)}: expected {_expected(wanted)}, {found_among(flat)}")
    try:
        # Via float64: bfloat16 takes no large integers.
        found = np.array(flat, np.float64 if accepted is NUMBERS else wanted).reshape(shape)
    except OverflowError:
        raise InvalidRequestError(
            f"input {quote(name)}: expected {_expected(wanted)}, got {min(flat)} to {max(flat)}"
        ) from None
    with np.errstate(over="ignore"):
        return found.astype(wanted, copy=False)


def flatten(name: str, data: object) -> tuple[list[Any], tuple[int, ...]]:
    """Return nested lists as one list and their shape: numpy converts that several times faster.

    Raises `InvalidRequestError` if lengths differ.
    """
    if not isinstance(data, list):
        return [data], ()
    shape = [len(data)]
    while data and isinstance(data[0], list):
        even = set(map(type, data)) == {list} and len(set(map(len, data))) == 1
        if not even or len(shape) == MAX_DIMENSIONS:
            expected = f"expected lists of equal lengths, at most {MAX_DIMENSIONS} levels deep"
            raise InvalidRequestError(f"input {quote(name)}: {expected}")
        shape.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(shape)


def found_among(flat: list[Any]) -> str:
    """Return the kinds of values that came, for a message: "got integers, strings"."""
    return "got " + ", ".join(sorted(NAMES.get(kind, "null") for kind in set(map(type, flat))))


def _expected(wanted: np.dtype[Any]) -> str:
    if wanted.kind == "b":
        return "booleans"
    if wanted.kind not in "iu":
        return f"numbers of dtype {wanted.name}"
    limits = np.iinfo(wanted)
    return f"integers of dtype {wanted.name}, {limits.min} to {limits.max}"
