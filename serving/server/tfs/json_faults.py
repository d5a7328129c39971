"""Why JSON values make no tensor, in the words of the original, which finds the first fault value by value.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/util/json_tensor.cc
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.protocols.json_arrays import MAX_DIMENSIONS
from serving.server.tensors.json_numbers import lists
from serving.server.tensors.signature import BYTES, TensorSpec

EXACT = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}
"""Below this, a dtype holds every whole number."""
WORTH_LOOKING_AT = 100_000
"""Values: who sends more is told less, because nothing else is answered meanwhile."""
WORDS = {"float32": "float", "float64": "double", "float16": "half", BYTES: "string"}


def fault(spec: TensorSpec, value: object, rows: bool) -> str:
    """What the original says of a value of lists, or of each row of it; "" where it finds nothing, or not soon."""
    try:
        if not rows:
            _Tensor(spec, value, [WORTH_LOOKING_AT]).check()
        elif isinstance(value, list):
            _check_rows(spec, value)
    except InvalidRequestError as error:
        return f"{error} (input {spec.name!r})"
    except _TooLongError:
        pass
    return ""


def type_word(value: object) -> str:
    """What the original calls the type of a JSON value."""
    if isinstance(value, bool):
        return str(value)
    words = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return words.get(type(value), "Number")


def dtype_word(dtype: str) -> str:
    """What TensorFlow calls a dtype."""
    return WORDS.get(dtype, dtype)


def glimpse(value: object) -> str:
    """The beginning of a JSON value, for a message."""
    try:
        text = orjson.dumps(value, default=lists).decode()
    except TypeError:  # Integers beyond 64 bits.
        text = str(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = "NaN" if value != value else f"{'-' if value < 0 else ''}Infinity"
    return f"{text[:80]}{'…' if len(text) > 80 else ''}"


def is_lossy(dtype: str, number: float) -> bool:
    """Whether a floating dtype would round this integer, or has no room for this number."""
    if isinstance(number, int):
        return abs(number) >= EXACT[dtype]
    return float(ml_dtypes.finfo(dtype).max) < abs(number) < np.inf  # type: ignore[no-untyped-call]


def lossy(dtype: str, number: float) -> InvalidRequestError:
    """The error for such a number."""
    return InvalidRequestError(
        f"Cannot convert JSON value: {glimpse(number)} to {dtype_word(dtype)} without loss of precision."
    )


class _TooLongError(Exception):
    """Enough values were looked at."""


class _Tensor:
    """One value of lists, whose first elements say what shape all should have."""

    def __init__(self, spec: TensorSpec, value: object, left: list[int]) -> None:
        self._spec = spec
        self._value = value
        self._left = left
        self.shape: list[int] = []
        while isinstance(value, list) and len(self.shape) <= MAX_DIMENSIONS:
            self.shape.append(len(value))
            value = value[0] if value else None
        if len(self.shape) > MAX_DIMENSIONS:
            raise _TooLongError

    def check(self) -> None:
        """Raise `InvalidRequestError` where the value is no tensor, `_TooLongError` where that takes long."""
        self._check(self._value, 0)

    def _check(self, value: object, level: int) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise _TooLongError
        rank = len(self.shape)
        if not isinstance(value, list):
            if level != rank:
                raise InvalidRequestError(
                    f"JSON Value: {glimpse(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
            _check_value(self._spec.dtype, value)
            return
        if level >= rank:
            raise InvalidRequestError(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != self.shape[level]:
            raise InvalidRequestError(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {self.shape[level]}"
            )
        for element in value:
            self._check(element, level + 1)


def _check_rows(spec: TensorSpec, rows: Iterable[object]) -> None:
    first: Sequence[int] | None = None
    left = [WORTH_LOOKING_AT]
    for index, row in enumerate(rows):
        try:
            tensor = _Tensor(spec, row, left)
            tensor.check()
            first = tensor.shape if first is None else first
            _check_shape(first, tensor.shape)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                f"Failed to process element: {index} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
            ) from None


def _check_shape(expected: Sequence[int], shape: Sequence[int]) -> None:
    if math.prod(expected) != math.prod(shape):
        raise InvalidRequestError(f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(shape)}")
    if list(expected) != list(shape):
        wanted, got = (f"[{','.join(map(str, sizes))}]" for sizes in (expected, shape))
        raise InvalidRequestError(f"Expecting shape {wanted} but got: {got}")


def _check_value(dtype: str, value: object) -> None:
    if dtype == BYTES:
        if isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str)):
            raise InvalidRequestError(f"JSON Value: {glimpse(value)} not formatted correctly for base64 data")
        fits = isinstance(value, str | dict)
    elif dtype == "bool":
        fits = isinstance(value, bool)
    elif dtype in EXACT:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if fits and is_lossy(dtype, value):  # type: ignore[arg-type]
            raise lossy(dtype, value)  # type: ignore[arg-type]
    else:
        limits = np.iinfo(dtype)
        fits = type(value) is int and limits.min <= value <= limits.max
    if not fits:
        raise InvalidRequestError(
            f"JSON Value: {glimpse(value)} Type: {type_word(value)} "
            f"is not of expected type: {dtype_word(dtype)}"
        )
