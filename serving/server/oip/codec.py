"""Tensors of the Open Inference Protocol: datatypes, raw and JSON forms, descriptions in requests.

Raw form: little-endian, as the CPUs of all runtimes; row-major; each of BYTES is a 4-byte length and that many bytes.

Of parameters, the `timeout` of the schedule policy and those of binary tensors have an effect. Others are ignored,
except for those of extensions that would change the response, which are refused.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_schedule_policy.md
"""

from __future__ import annotations

import math
import struct
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server.errors import InvalidRequestError, TooLargeError, quote
from serving.server.tensors.json_numbers import MAX_DIMENSIONS, flatten, found_among, numbers
from serving.server.tensors.signature import (
    BYTES,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    dtype_of,
    is_floating,
    strings,
)

DATATYPES = {
    **{"bool": "BOOL", "bfloat16": "BF16", "float16": "FP16", "float32": "FP32", "float64": "FP64"},
    BYTES: "BYTES",
    **{f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
"""The protocol's datatypes, by dtype."""
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
MAX_ELEMENTS = 2**59
"""Product of the sizes that are not 0: numpy counts bytes in 63 bits."""
MAX_STRINGS = 2**17
"""Elements of a BYTES tensor, which Python takes 0.1 s to read."""
NOT_OFFERED = {
    "classification": "the classification extension (class_count); sort the output in the client",
    "shared_memory_region": "shared memory; send the data with the request",
}
"""Unsupported extensions, by the parameter that asks for them."""

Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """The description of an input in a request, checked against its spec before its data are read."""

    spec: TensorSpec
    dtype: str
    """BYTES for encoded pictures."""
    shape: tuple[int, ...]


def describe(
    signature: Signature, name: object, datatype: object, shape: object, parameters: Parameters, seen: Tensors
) -> Described:
    """Check an input's description; `seen` are the inputs that precede it.

    Raises `InvalidRequestError`, or `TooLargeError` for more than `MAX_STRINGS` strings.
    """
    spec = next((spec for spec in signature.inputs if spec.name == name), None)
    if spec is None:
        known = ", ".join(signature.input_names) or "none"
        raise InvalidRequestError(f"unknown input {quote(name)}; the model has {known}")
    if spec.name in seen:
        raise InvalidRequestError(f"input {quote(name)} is given twice")
    _check_offered(parameters, "input", spec.name)
    pictures = spec.picture_size is not None
    dtype = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None or not (dtype == spec.dtype or (pictures and dtype == BYTES)):
        expected = name_of(spec.dtype) + (" (or BYTES: encoded pictures)" if pictures else "")
        raise spec.refused(f"expected datatype {expected}, got {quote(datatype)}")
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
        and math.prod(size for size in shape if size) <= MAX_ELEMENTS
    ):
        expected = f"a shape of at most {MAX_DIMENSIONS} non-negative integers and {MAX_ELEMENTS} elements"
        raise spec.refused(f"expected {expected}, got {quote(shape)}")
    if dtype == BYTES and math.prod(shape) > MAX_STRINGS:
        expected = f"at most {MAX_STRINGS} elements of BYTES"
        raise TooLargeError(f"input {quote(name)}: expected {expected}, got {math.prod(shape)}")
    return Described(spec, dtype, tuple(shape))


def outputs_wanted(
    count: int, outputs: Iterable[tuple[str, Parameters]], signature: Signature
) -> dict[str, Parameters]:
    """Return the parameters of the `count` requested outputs by name. Raises `InvalidRequestError`."""
    if count > len(signature.outputs):  # Before they are read: a client may name a million.
        names = ", ".join(signature.output_names)
        raise InvalidRequestError(f"expected each of the outputs {names} once at most, got {count} outputs")
    wanted = dict(outputs)
    if len(wanted) != count:
        raise InvalidRequestError(f"expected each output once at most, got {count} of {quote(list(wanted))}")
    for name, parameters in wanted.items():
        _check_offered(parameters, "output", name)
    return wanted


def _check_offered(parameters: Parameters, kind: str, name: str) -> None:
    for parameter, extension in NOT_OFFERED.items():
        if parameter in parameters:
            raise InvalidRequestError(f"{kind} {quote(name)}: this server does not offer {extension}")


def timeout_seconds(timeout: object) -> float | None:
    """Return the time limit of a request, from `timeout` in microseconds; 0 for none. Raises `InvalidRequestError`."""
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise InvalidRequestError(f"expected a timeout in microseconds, 0 for none, got {quote(timeout)}")
    return timeout / 1e6 if timeout else None


def name_of(dtype: str) -> str:
    """Return the protocol's name of a dtype; a dtype without one (complex64) keeps its own."""
    return DATATYPES.get(dtype, dtype.upper())


def from_raw(tensor: Described, raw: bytes | memoryview) -> Array:
    """Read a tensor in raw form. Raises `InvalidRequestError` if the sizes do not match."""
    if tensor.dtype == BYTES:
        return strings(_split(tensor, raw)).reshape(tensor.shape)
    expected = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
    if len(raw) != expected:
        what = f"{name_of(tensor.dtype)} {list(tensor.shape)}"
        raise tensor.spec.refused(f"expected {expected} bytes for {what}, got {len(raw)}")
    if tensor.dtype == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise tensor.spec.refused("expected bytes of 0 or 1 for BOOL, got others")
    array: Array = np.frombuffer(raw, tensor.dtype).reshape(tensor.shape)
    return array


def from_json(tensor: Described, data: object) -> Array:
    """Read a tensor from JSON data, nested or flat; pictures are base64. Raises `InvalidRequestError`."""
    flat, shape = flatten(tensor.spec.name, data)
    check_shape(tensor, shape)
    if tensor.dtype == BYTES:
        return strings(_encode(tensor, flat)).reshape(tensor.shape)
    return numbers(tensor.spec.name, tensor.dtype, flat).reshape(tensor.shape)


def check_shape(tensor: Described, shape: tuple[int, ...]) -> None:
    """Raise `InvalidRequestError` unless the data's shape is flat or the tensor's."""
    if shape not in (tensor.shape, (math.prod(tensor.shape),)):
        raise tensor.spec.refused(f"expected data of shape {list(tensor.shape)}, got {list(shape)}")


def to_raw(array: Array) -> bytes:
    if array.dtype.hasobject:
        return b"".join(struct.pack("<I", len(value)) + value for value in map(to_bytes, array.flat))
    return array.tobytes()


def to_json(name: str, array: Array) -> Array | list[str]:
    """Return a tensor as flat data for orjson. Raises `InvalidRequestError` for values that JSON does not have."""
    if array.dtype.hasobject:
        try:
            return [to_bytes(value).decode() for value in array.flat]
        except UnicodeDecodeError:
            raise _not_json(name, "bytes that are no text") from None
    if dtype_of(array) not in DATATYPES:
        raise _not_json(name, f"{array.dtype.name} numbers")
    if is_floating(array):
        if array.itemsize == 2:
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise _not_json(name, "NaN or infinity")
    return np.ascontiguousarray(array).reshape(-1)


def to_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _not_json(name: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"output {name!r} holds {what}, which JSON has not: ask for binary_data")


def _split(tensor: Described, raw: bytes | memoryview) -> list[bytes]:
    count = math.prod(tensor.shape)
    values = []
    start = 0
    for index in range(count):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        if end > len(raw):
            takes = f"element {index} of {count} takes {end - start} bytes with its length"
            raise tensor.spec.refused(f"{takes}, but {len(raw) - start} are left")
        values.append(bytes(raw[start + 4 : end]))
        start = end
    if start != len(raw):
        raise tensor.spec.refused(f"expected {count} elements, but {len(raw) - start} bytes follow them")
    return values


def _encode(tensor: Described, texts: list[object]) -> list[bytes]:
    encoded = []
    pictures = tensor.spec.picture_size is not None
    for text in texts:
        if not isinstance(text, str):
            raise tensor.spec.refused(f"expected strings for BYTES, {found_among(texts)}")
        try:
            encoded.append(a2b_base64(text, strict_mode=True) if pictures else text.encode())
        except ValueError as error:
            raise tensor.spec.refused(f"expected pictures in base64: {error}") from None
    return encoded
