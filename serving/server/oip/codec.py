"""Tensors of the Open Inference Protocol: its datatypes, and their raw and JSON forms.

Raw form: little-endian, row-major; each element of BYTES is a 4-byte length and that many bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from binascii import a2b_base64
from collections.abc import Sequence

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.protocols.json_arrays import MAX_DIMENSIONS
from serving.server.tensors.json_numbers import flatten, found_among, lists, numbers
from serving.server.tensors.signature import BYTES, Array, is_floating

DATATYPES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    BYTES: "BYTES",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}
"""The protocol's names of our dtypes."""
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
LITTLE_ENDIAN = {dtype: np.dtype(dtype).newbyteorder("<") for dtype in DATATYPES if dtype != BYTES}
MAX_ELEMENTS = 2**59
"""Of the sizes that are not 0: numpy counts bytes in 63 bits."""


def datatype(dtype: str) -> str:
    """The protocol's name of one of our dtypes; one that it has no name for (complex64) keeps its own."""
    return DATATYPES.get(dtype, dtype.upper())


def dtype(name: str, datatype: object) -> str:
    """Our dtype of a datatype. Raises `InvalidRequestError`."""
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise InvalidRequestError(
            f"input {name!r}: unknown datatype {datatype!r}; expected one of {', '.join(DTYPES)}"
        )
    return DTYPES[datatype]


def shape(name: str, sizes: object) -> tuple[int, ...]:
    """A shape of non-negative sizes. Raises `InvalidRequestError`."""
    if (
        not isinstance(sizes, Sequence)
        or isinstance(sizes, str)
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes)
    ):
        raise InvalidRequestError(
            f"input {name!r}: expected a shape of non-negative integers, got {str(sizes)[:80]}"
        )
    if len(sizes) > MAX_DIMENSIONS or math.prod(size for size in sizes if size) > MAX_ELEMENTS:
        raise InvalidRequestError(
            f"input {name!r}: expected a shape of at most {MAX_DIMENSIONS} dimensions and {MAX_ELEMENTS} elements, "
            f"got {str(sizes)[:80]}"
        )
    return tuple(sizes)


def from_raw(name: str, datatype: str, sizes: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """A tensor from its raw form. Raises `InvalidRequestError` where the sizes do not match."""
    kind = dtype(name, datatype)
    count = math.prod(sizes)
    if kind == BYTES:
        return strings(name, sizes, _split(name, raw))
    expected = count * LITTLE_ENDIAN[kind].itemsize
    if len(raw) != expected:
        raise InvalidRequestError(
            f"input {name!r}: expected {expected} bytes for {datatype} {list(sizes)}, got {len(raw)}"
        )
    if kind == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise InvalidRequestError(f"input {name!r}: expected bytes of 0 or 1 for BOOL, got others")
    return np.frombuffer(raw, LITTLE_ENDIAN[kind]).astype(kind, copy=False).reshape(sizes)


def from_json(name: str, datatype: str, sizes: tuple[int, ...], data: object, base64: bool) -> Array:
    """A tensor from JSON data, nested or flat; BYTES are strings, in base64 or as they are.

    Raises `InvalidRequestError`.
    """
    kind = dtype(name, datatype)
    if kind == BYTES:
        texts, shape = flatten(name, lists(data))
        return fit_shape(name, strings(name, shape, _encode(name, texts, base64)), sizes)
    return fit_shape(name, numbers(name, kind, data), sizes)


def fit_shape(name: str, array: Array, sizes: tuple[int, ...]) -> Array:
    """Give flat data its shape; nested data must have it already. Raises `InvalidRequestError`."""
    if array.shape == sizes:
        return array
    if array.ndim == 1 and array.size == math.prod(sizes):
        return array.reshape(sizes)
    raise InvalidRequestError(
        f"input {name!r}: expected data of shape {list(sizes)}, got {list(array.shape)}"
    )


def to_raw(array: Array) -> bytes:
    """A tensor's raw form."""
    if array.dtype.hasobject:
        return b"".join(struct.pack("<I", len(value)) + value for value in map(to_bytes, array.flat))
    return (array if sys.byteorder == "little" else array.byteswap()).tobytes()


def to_json(name: str, array: Array) -> bytes:
    """A tensor as flat JSON data. Raises `InvalidRequestError` where it holds what JSON cannot carry."""
    if array.dtype.hasobject:
        try:
            return orjson.dumps([to_bytes(value).decode() for value in array.flat])
        except UnicodeDecodeError:
            raise InvalidRequestError(
                f"output {name!r} holds bytes that are no text: ask for binary_data, or use gRPC"
            ) from None
    if array.itemsize == 2 and is_floating(array):
        array = array.astype(np.float32)
    text = orjson.dumps(np.ascontiguousarray(array).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in text:
        raise InvalidRequestError(
            f"output {name!r} holds NaN or infinity, which JSON has not: ask for binary_data, or use gRPC"
        )
    return text


def to_bytes(value: object) -> bytes:
    """An element of a tensor of strings."""
    return value if isinstance(value, bytes) else str(value).encode()


def _split(name: str, raw: bytes | memoryview) -> list[bytes]:
    values = []
    start = 0
    while start < len(raw):
        end = start + 4
        if end > len(raw):
            raise InvalidRequestError(
                f"input {name!r}: expected a 4-byte length at byte {start}, got {len(raw) - start}"
            )
        (length,) = struct.unpack_from("<I", raw, start)
        start, end = end, end + length
        if end > len(raw):
            raise InvalidRequestError(
                f"input {name!r}: an element says {length} bytes, but the tensor has {len(raw) - start} left"
            )
        values.append(bytes(raw[start:end]))
        start = end
    return values


def _encode(name: str, texts: list[object], base64: bool) -> list[bytes]:
    decoded = []
    for value in texts:
        if not isinstance(value, str):
            raise InvalidRequestError(f"input {name!r}: expected strings for BYTES, {found_among(texts)}")
        try:
            decoded.append(a2b_base64(value, strict_mode=True) if base64 else value.encode())
        except ValueError as error:
            raise InvalidRequestError(f"input {name!r}: expected pictures in base64: {error}") from None
    return decoded


def strings(name: str, sizes: tuple[int, ...], values: list[bytes]) -> Array:
    """A tensor of strings from its flat elements. Raises `InvalidRequestError`."""
    count = math.prod(sizes)
    if len(values) != count:
        raise InvalidRequestError(
            f"input {name!r}: expected {count} elements for shape {list(sizes)}, got {len(values)}"
        )
    array = np.empty(count, object)
    array[:] = values
    return array.reshape(sizes)


def one(value: bytes) -> Array:
    """A tensor of one string."""
    array = np.empty(1, object)
    array[0] = value
    return array
