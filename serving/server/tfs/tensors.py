"""TensorProto, TensorFlow's own form of a tensor, from and to numpy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from serving.server.errors import InvalidRequestError, TooLargeError, quote
from serving.server.tensors.signature import BYTES, Array, dtype_of

STRING_BYTES = 24
"""Memory that TensorFlow needs for a string, in addition to its characters."""


class Form(NamedTuple):
    """The field of a TensorProto for a dtype, and the dtype and number of its items for each value."""

    field: str
    item: str
    items: int = 1


FORMS: dict[str, Form] = {
    "float32": Form("float_val", "float32"),
    "float64": Form("double_val", "float64"),
    "float16": Form("half_val", "uint16"),
    "bfloat16": Form("half_val", "uint16"),
    "complex64": Form("scomplex_val", "float32", 2),
    "complex128": Form("dcomplex_val", "float64", 2),
    "bool": Form("bool_val", "bool"),
    "int64": Form("int64_val", "int64"),
    "uint32": Form("uint32_val", "uint32"),
    "uint64": Form("uint64_val", "uint64"),
    **{name: Form("int_val", name) for name in ("int8", "int16", "int32", "uint8", "uint16")},
    BYTES: Form("string_val", "object"),
}
ENUMS = {name: tf.as_dtype("string" if name == BYTES else name).as_datatype_enum for name in FORMS}
DTYPES = {enum: name for name, enum in ENUMS.items()}


def from_proto(name: str, proto: Any, max_bytes: int) -> Array:
    """Return a tensor of at most `max_bytes`. Raises `InvalidRequestError` or `TooLargeError`.

    As in TensorFlow, the last value fills the rest of a tensor that has more elements than values.
    """
    what = f"input {quote(name)}"
    dtype = DTYPES.get(proto.dtype)
    if dtype is None:
        raise InvalidRequestError(f"{what}: dtype {proto.dtype} is not served")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    # Also if a dimension is 0, the bytes of the others must be a number of 63 bits.
    countable = math.prod(max(size, 1) for size in shape) < 2**59
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0 or len(shape) > 32 or not countable:
        raise InvalidRequestError(f"{what}: expected the shape of a tensor, got {quote(shape)}")
    count = math.prod(shape)
    values, items = getattr(proto, FORMS[dtype].field), FORMS[dtype].items
    if not proto.tensor_content and (len(values) > count * items or len(values) % items):
        raise InvalidRequestError(
            f"{what}: expected {count} values for shape {shape}, got {len(values) / items:g}"
        )
    # One value may fill the tensor: a short message must not become gigabytes.
    last = len(values[-1]) if dtype == BYTES and values else 0
    size = count * (STRING_BYTES + last if dtype == BYTES else np.dtype(dtype).itemsize)
    if len(values) < count * items and size > max_bytes:
        got = f"got {len(values) // items} values for {size} bytes"
        raise TooLargeError(f"{what}: expected at most {max_bytes} bytes, {got}")
    try:
        array: Array = tf.make_ndarray(proto)
    except (ValueError, OverflowError) as error:
        expected = f"{dtype} values for shape {shape}"
        raise InvalidRequestError(f"{what}: expected {expected}, got others: {error}") from None
    return array


def to_proto(array: Array, proto: Any) -> None:
    """Write a tensor into an empty TensorProto, its values into the field of their dtype."""
    dtype = dtype_of(array)
    proto.dtype = ENUMS[dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = np.ascontiguousarray(array).ravel()
    getattr(proto, FORMS[dtype].field).extend(flat.view(FORMS[dtype].item).tolist())
