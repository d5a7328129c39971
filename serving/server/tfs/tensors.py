"""TensorProto, TensorFlow's own form of a tensor, from and to numpy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.server.errors import InvalidRequestError, TooLargeError
from serving.server.tensors.signature import BYTES, Array, dtype_of

LARGEST = 2**59
"""Elements that a tensor of 16 bytes each can have."""
STRING_BYTES = 24
"""What TensorFlow takes for a string, apart from its characters."""


class Form(NamedTuple):
    """How the values of a dtype lie in a TensorProto: the field, and the dtype and number of its items a value."""

    dtype: str
    field: str
    item: str
    items: int = 1


FORMS: dict[int, Form] = {
    tf.as_dtype(form.dtype if form.dtype != BYTES else "string").as_datatype_enum: form
    for form in (
        Form("float32", "float_val", "float32"),
        Form("float64", "double_val", "float64"),
        Form("float16", "half_val", "uint16"),
        Form("bfloat16", "half_val", "uint16"),
        Form("complex64", "scomplex_val", "float32", 2),
        Form("complex128", "dcomplex_val", "float64", 2),
        Form("bool", "bool_val", "bool"),
        Form("int64", "int64_val", "int64"),
        Form("uint32", "uint32_val", "uint32"),
        Form("uint64", "uint64_val", "uint64"),
        *(Form(name, "int_val", name) for name in ("int8", "int16", "int32", "uint8", "uint16")),
        Form(BYTES, "string_val", "object"),
    )
}
ENUMS = {form.dtype: enum for enum, form in FORMS.items()}
PACKED = {"float_val": b"\x2a", "double_val": b"\x32", "scomplex_val": b"\x4a", "dcomplex_val": b"\x62"}
"""Fields that on the wire are their values' bytes, by what precedes them: field number and wire type 2."""


def from_proto(name: str, proto: Any, max_bytes: int) -> Array:  # noqa: ANN401 - its package has no types
    """A tensor of at most `max_bytes`. Raises `InvalidRequestError` or `TooLargeError`.

    As TensorFlow reads it: where there are fewer values than elements, the last one stands for the rest.
    """
    form = FORMS.get(proto.dtype)
    if form is None:
        raise InvalidRequestError(f"input {name!r}: tensor parsing error: dtype {proto.dtype} is not served")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    # Not even where a dimension is 0 may the others be anything: no library could count them.
    countable = math.prod(max(size, 1) for size in shape) < LARGEST
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0 or len(shape) > 32 or not countable:
        raise InvalidRequestError(f"input {name!r}: tensor parsing error: {shape} is no shape of a tensor")
    count = math.prod(shape)
    if proto.tensor_content and form.dtype != BYTES:
        return _from_content(name, proto.tensor_content, form, shape)
    values = getattr(proto, form.field)
    if len(values) > count * form.items or len(values) % form.items:
        raise InvalidRequestError(
            f"input {name!r}: tensor parsing error: expected {count} values in {form.field} for shape {shape}, "
            f"got {len(values) // form.items}"
        )
    # One value may stand for all: a short message must not become gigabytes.
    size = count * _size(form, values)
    if len(values) < count * form.items and size > max_bytes:
        raise TooLargeError(
            f"input {name!r}: expected at most {max_bytes} bytes, got {len(values)} values for {size} bytes"
        )
    return _from_values(name, values, form, count).reshape(shape)


def to_proto(array: Array, proto: Any, as_content: bool = False) -> None:  # noqa: ANN401 - see above
    """Write a tensor into an empty TensorProto, its values into the field of their dtype or into its content."""
    form = FORMS[ENUMS[dtype_of(array)]]
    proto.dtype = ENUMS[form.dtype]
    shape = proto.tensor_shape
    for size in array.shape:
        shape.dim.add().size = size
    if form.dtype == BYTES:
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = array.tobytes()
    elif form.field in PACKED:
        data = array.tobytes()
        proto.MergeFromString(PACKED[form.field] + _varint(len(data)) + data)
    else:
        flat = np.ascontiguousarray(array).ravel()
        values = flat.view(form.item) if form.field == "half_val" else flat
        getattr(proto, form.field).extend(values.tolist())


def _from_content(name: str, content: bytes, form: Form, shape: list[int]) -> Array:
    dtype = np.dtype(form.dtype)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise InvalidRequestError(
            f"input {name!r}: tensor parsing error: tensor_content has {len(content)} bytes for {form.dtype} {shape}"
        )
    return np.frombuffer(content, dtype).reshape(shape)


def _from_values(name: str, values: Any, form: Form, count: int) -> Array:  # noqa: ANN401 - a repeated field
    given = len(values) // form.items
    if form.dtype == BYTES:
        strings: NDArray[np.object_] = np.full(count, values[-1] if given else b"", object)
        strings[:given] = list(values)
        return strings
    item = np.dtype(form.item)
    # These fields take 32 bits: whatever does not fit must not pass as something else.
    wide = form.field in ("int_val", "half_val")
    read = np.array(values[:], np.int32 if wide else item)  # A slice is a list, and fast.
    if wide and read.size:
        limits = np.iinfo(item)
        if read.min() < limits.min or read.max() > limits.max:
            raise InvalidRequestError(
                f"input {name!r}: tensor parsing error: values that {form.dtype} cannot hold"
            )
    found: Array = read.astype(item, copy=False).view(form.dtype)
    if given == count:
        return found
    filled: Array = np.zeros(count, form.dtype)
    filled[:given] = found
    filled[given:] = found[-1] if given else 0
    return filled


def _size(form: Form, values: Any) -> int:  # noqa: ANN401 - see above
    if form.dtype != BYTES:
        return np.dtype(form.dtype).itemsize
    return STRING_BYTES + (len(values[-1]) if values else 0)


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
