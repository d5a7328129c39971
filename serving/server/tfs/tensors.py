"""TensorProto, TensorFlow's own form of a tensor, from and to numpy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from serving.server.errors import InvalidRequestError, TooLargeError, quote
from serving.server.tensors.signature import BYTES, Array, dtype_of

LARGEST = 2**59
"""Maximum number of elements of a tensor."""
STRING_BYTES = 24
"""Memory that TensorFlow needs for a string, in addition to its characters."""


class Form(NamedTuple):
    """The layout of a dtype in a TensorProto: the field, and the dtype and number of its items for each value."""

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


def from_proto(name: str, proto: Any, max_bytes: int) -> Array:
    """A tensor of at most `max_bytes`. Raises `InvalidRequestError` or `TooLargeError`.

    As in TensorFlow, the last value fills the rest of a tensor that has more elements than values.
    """
    what = f"input {quote(name)}"
    form = FORMS.get(proto.dtype)
    if form is None:
        raise InvalidRequestError(f"{what}: dtype {proto.dtype} is not served")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    # Also if a dimension is 0, the product of the others must fit into 63 bits.
    countable = math.prod(max(size, 1) for size in shape) < LARGEST
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0 or len(shape) > 32 or not countable:
        raise InvalidRequestError(f"{what}: expected the shape of a tensor, got {quote(shape)}")
    count = math.prod(shape)
    if not proto.tensor_content or form.dtype == BYTES:
        values = getattr(proto, form.field)
        got = f"got {len(values) // form.items} values"
        if len(values) > count * form.items or len(values) % form.items:
            raise InvalidRequestError(
                f"{what}: expected {count} values in {form.field} for shape {shape}, {got}"
            )
        # One value may fill the tensor: a short message must not become gigabytes.
        size = count * _size(form, values)
        if len(values) < count * form.items and size > max_bytes:
            raise TooLargeError(f"{what}: expected at most {max_bytes} bytes, {got} for {size} bytes")
    try:
        array: Array = tf.make_ndarray(proto)
    except (ValueError, OverflowError) as error:
        expected = f"{form.dtype} values for shape {shape}"
        raise InvalidRequestError(f"{what}: expected {expected}, got others: {error}") from None
    return array


def to_proto(array: Array, proto: Any, as_content: bool = False) -> None:
    """Write a tensor into an empty TensorProto, its values into the field of their dtype or into its content."""
    enum = ENUMS[dtype_of(array)]
    form = FORMS[enum]
    proto.dtype = enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if as_content and form.dtype != BYTES:
        proto.tensor_content = array.tobytes()
    else:
        flat = np.ascontiguousarray(array).ravel()
        getattr(proto, form.field).extend(flat.view(form.item).tolist())


def _size(form: Form, values: Any) -> int:
    if form.dtype != BYTES:
        return np.dtype(form.dtype).itemsize
    return STRING_BYTES + (len(values[-1]) if values else 0)
