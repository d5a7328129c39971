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

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.json_numbers import MAX_DIMENSIONS, flatten, found_among, numbers
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
            f"input {quote(name)}: unknown datatype {quote(datatype)}; expected one of {', '.join(DTYPES)}"
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
            f"input {quote(name)}: expected a shape of non-negative integers, got {quote(sizes)}"
        )
    if len(sizes) > MAX_DIMENSIONS or math.prod(size for size in sizes if size) > MAX_ELEMENTS:
        raise InvalidRequestError(
            f"input {quote(name)}: expected at most {MAX_DIMENSIONS} dimensions and {MAX_ELEMENTS} elements, "
            f"got the shape {quote(sizes)}"
        )
    return tuple(sizes)


def from_raw(name: str, kind: str, sizes: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """A tensor of our dtype `kind` from its raw form. Raises `InvalidRequestError` where the sizes do not match."""
    count = math.prod(sizes)
    if kind == BYTES:
        return strings(name, sizes, _split(name, count, raw))
    expected = count * LITTLE_ENDIAN[kind].itemsize
    if len(raw) != expected:
        raise InvalidRequestError(
            f"input {quote(name)}: expected {expected} bytes for {DATATYPES[kind]} {list(sizes)}, got {len(raw)}"
        )
    if kind == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise InvalidRequestError(f"input {quote(name)}: expected bytes of 0 or 1 for BOOL, got others")
    return np.frombuffer(raw, LITTLE_ENDIAN[kind]).astype(kind, copy=False).reshape(sizes)


def from_json(name: str, kind: str, sizes: tuple[int, ...], data: object, base64: bool) -> Array:
    """A tensor of our dtype `kind` from JSON data, nested or flat; strings are in base64 or as they are.

    Raises `InvalidRequestError`.
    """
    if kind == BYTES:
        texts, shape = flatten(name, data)
        return fit_shape(name, strings(name, shape, _encode(name, texts, base64)), sizes)
    return fit_shape(name, numbers(name, kind, data), sizes)


def fit_shape(name: str, array: Array, sizes: tuple[int, ...]) -> Array:
    """Give flat data its shape; nested data must have it already. Raises `InvalidRequestError`."""
    if array.shape == sizes:
        return array
    if array.ndim == 1 and array.size == math.prod(sizes):
        return array.reshape(sizes)
    raise InvalidRequestError(
        f"input {quote(name)}: expected data of shape {list(sizes)}, got {list(array.shape)}"
    )


def to_raw(array: Array) -> bytes:
    """A tensor's raw form."""
    if array.dtype.hasobject:
        return b"".join(struct.pack("<I", len(value)) + value for value in map(to_bytes, array.flat))
    return (array if sys.byteorder == "little" else array.byteswap()).tobytes()


def to_json(name: str, array: Array) -> Array | list[str]:
    """A tensor as flat JSON data for orjson. Raises `InvalidRequestError` where it holds what JSON cannot carry."""
    if array.dtype.hasobject:
        try:
            return [to_bytes(value).decode() for value in array.flat]
        except UnicodeDecodeError:
            raise InvalidRequestError(
                f"output {name!r} holds bytes that are no text: ask for binary_data, or use gRPC"
            ) from None
    if is_floating(array):
        if array.itemsize == 2:
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise InvalidRequestError(
                f"output {name!r} holds NaN or infinity, which JSON has not: ask for binary_data, or use gRPC"
            )
    return np.ascontiguousarray(array).reshape(-1)


def to_bytes(value: object) -> bytes:
    """An element of a tensor of strings."""
    return value if isinstance(value, bytes) else str(value).encode()


def _split(name: str, count: int, raw: bytes | memoryview) -> list[bytes]:
    """`count` strings, each a 4-byte length and that many bytes."""
    # Before the loop: 31 MB of zero lengths would hold the event loop for seconds.
    if len(raw) < 4 * count:
        raise InvalidRequestError(
            f"input {quote(name)}: expected {count} elements of at least 4 bytes each, got {len(raw)} bytes"
        )
    values = []
    start = 0
    for index in range(count):
        if start + 4 > len(raw):
            raise InvalidRequestError(
                f"input {quote(name)}: expected {count} elements, got {index} and {len(raw) - start} bytes more"
            )
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4
        if start + length > len(raw):
            raise InvalidRequestError(
                f"input {quote(name)}: element {index} says {length} bytes, but {len(raw) - start} are left"
            )
        values.append(bytes(raw[start : start + length]))
        start += length
    if start != len(raw):
        raise InvalidRequestError(
            f"input {quote(name)}: expected {count} elements, but {len(raw) - start} bytes follow them"
        )
    return values


def _encode(name: str, texts: list[object], base64: bool) -> list[bytes]:
    decoded = []
    for value in texts:
        if not isinstance(value, str):
            raise InvalidRequestError(
                f"input {quote(name)}: expected strings for BYTES, {found_among(texts)}"
            )
        try:
            decoded.append(a2b_base64(value, strict_mode=True) if base64 else value.encode())
        except ValueError as error:
            raise InvalidRequestError(f"input {quote(name)}: expected pictures in base64: {error}") from None
    return decoded


def strings(name: str, sizes: tuple[int, ...], values: list[bytes]) -> Array:
    """A tensor of strings from its flat elements. Raises `InvalidRequestError`."""
    count = math.prod(sizes)
    if len(values) != count:
        raise InvalidRequestError(
            f"input {quote(name)}: expected {count} elements for shape {list(sizes)}, got {len(values)}"
        )
    array = np.empty(count, object)
    array[:] = values
    return array.reshape(sizes)


def single(value: bytes) -> Array:
    """A tensor of one string."""
    array = np.empty(1, object)
    array[0] = value
    return array
