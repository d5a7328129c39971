"""Bodies of requests: TF Serving's row form, .npy arrays, pictures, recognized by their first bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image
from ts.utils.util import PredictionException

NPY_MAGIC = b"\x93NUMPY"
PICTURE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
FORMS = 'expected JSON {"instances": [...]}, an .npy array, or a PNG or JPEG picture'
MAX_PIXELS = 16_777_216
"""4096 x 4096, which a few kilobytes may unpack to."""
KINDS = {
    "f": ("iuf", "number"),
    "i": ("iu", "whole number"),
    "u": ("iu", "whole number"),
    "b": ("b", "truth value"),
}
"""The accepted kinds of JSON values by a dtype's kind, and their name in messages."""

Array = NDArray[Any]
Inputs = dict[str, Array]


class Decoder:
    """Decodes the bodies for a model by its inputs, as `signature.json` has them. Raises `PredictionException`."""

    def __init__(self, inputs: dict[str, dict[str, Any]]) -> None:
        self.inputs = inputs
        self.alone = all(tensor["shape"][:1] != ["batch"] for tensor in inputs.values())
        """True if the model has no batch dimension."""
        start = 0 if self.alone else 1
        self.shapes = {name: tuple(tensor["shape"][start:]) for name, tensor in inputs.items()}
        self.only = next(iter(inputs)) if len(inputs) == 1 else ""
        self.picture = self.only if self.only and inputs[self.only]["content"] == "picture" else ""

    def zeros(self) -> Inputs:
        """Return inputs of one row; free sizes are 2."""
        rows = {name: [2 if isinstance(s, str) else s for s in row] for name, row in self.shapes.items()}
        first = [] if self.alone else [1]
        return {name: np.zeros(first + rows[name], own["dtype"]) for name, own in self.inputs.items()}

    def decode(self, body: bytes) -> Inputs:
        """Recognize the form of a body and decode it."""
        if body.startswith(NPY_MAGIC) and self.only:
            return {self.only: self._npy(body)}
        if body.startswith(PICTURE_MAGIC) and self.picture:
            return {self.picture: self._picture(body)[np.newaxis]}
        if body.lstrip()[:1] in (b"{", b"["):
            return self._json(body)
        others = ", an .npy array" * bool(self.only) + ", or a PNG or JPEG picture" * bool(self.picture)
        found = f"{len(body)} bytes that begin with {body[:8]!r}"
        raise bad_request(f'expected JSON {{"instances": [...]}}{others}, got {found}')

    def _npy(self, body: bytes) -> Array:
        """Check the header before the data: numpy would allocate any claimed size, and unpickle objects."""
        file = io.BytesIO(body)
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise bad_request(f"expected .npy version 1.0, got {version[0]}.{version[1]}")
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise bad_request(f"expected an .npy array, its header cannot be read: {short(error)}") from None
        wanted, row = self.inputs[self.only]["dtype"], self.shapes[self.only]
        sizes = row if self.alone else ("N", *row)
        expected = f"expected {wanted} [{', '.join(map(str, sizes))}]"
        if dtype != wanted:
            raise bad_request(f"{expected}, got dtype {dtype}")
        if not _fits(shape, sizes):
            raise bad_request(f"{expected}, got shape {list(shape)}")
        data = body[file.tell() :]
        size = int(np.prod(shape)) * dtype.itemsize
        if len(data) != size:
            raise bad_request(f"expected {size} bytes of data for shape {list(shape)}, got {len(data)}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")

    def _json(self, body: bytes) -> Inputs:
        """Decode TF Serving's row form."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"expected JSON, it cannot be read: {short(error)}") from None
        if self.alone:
            return self._columns(document)
        instances = document.get("instances") if isinstance(document, dict) else None
        if not isinstance(instances, list):
            raise bad_request(f'expected {{"instances": [row, ...]}}, got {_kind(document)}')
        if self.only and not any(isinstance(instance, dict) for instance in instances):
            return {self.only: self._numbers(instances, "instances", self.only, len(instances))}
        rows = [self._instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)]
        if not rows:
            raise bad_request("expected at least one row, got none")
        return {name: np.concatenate([row[name] for row in rows]) for name in self.inputs}

    def _columns(self, document: Any) -> Inputs:  # noqa: ANN401
        """Decode the inputs of a model that is not batched."""
        values = document.get("inputs") if isinstance(document, dict) else None
        if self.only and values is not None and not isinstance(values, dict):
            values = {self.only: values}
        if not isinstance(values, dict) or set(values) != set(self.inputs):
            raise bad_request(
                f'expected {{"inputs": {{...}}}} with the keys {sorted(self.inputs)}, got {_kind(document)}'
            )
        return {name: self._numbers([values[name]], f"inputs.{name}", name, 1)[0] for name in self.inputs}

    def _instance(self, instance: object, where: str) -> Inputs:
        """Decode an element of `instances`: one row of each input."""
        if isinstance(instance, dict) and set(instance) == set(self.inputs):
            return {name: self._value(instance[name], where, name) for name in self.inputs}
        if self.only:
            return {self.only: self._value(instance, where, self.only)}
        raise bad_request(f"{where}: expected the keys {sorted(self.inputs)}, got {_kind(instance)}")

    def _value(self, value: object, where: str, name: str) -> Array:
        """Decode one row of an input: [1, *shape]."""
        if not isinstance(value, dict):
            return self._numbers([value], where, name, 1)
        text = value.get("b64")
        if set(value) != {"b64"} or not isinstance(text, str) or self.picture != name:
            form = 'a picture or {"b64": "..."}' if self.picture == name else "numbers"
            raise bad_request(f"{where}: expected {form}, got {_kind(value)}")
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise bad_request(f"{where}: expected base64, {short(error)}") from None
        return self._picture(content, f"{where}: ")[np.newaxis]

    def _numbers(self, values: list[Any], where: str, name: str, count: int) -> Array:
        """Convert nested lists of numbers to `count` rows of an input."""
        row, dtype = self.shapes[name], np.dtype(self.inputs[name]["dtype"])
        shape = (count, *row)
        told = shape if where == "instances" else row
        allowed, what = KINDS[dtype.kind]
        expected = f"{where}: expected {what}s of shape {list(told)}"
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError):
            raise bad_request(f"{expected}, got lists of unequal lengths or too deep") from None
        if not array.size and not self.alone:
            raise bad_request("expected at least one row, got none")
        if array.size and array.dtype.kind not in allowed:
            raise bad_request(f"{expected}, got something that is no {what}")
        if not _fits(array.shape, shape):
            raise bad_request(
                f"{expected}, got shape {list(array.shape if told == shape else array.shape[1:])}"
            )
        limits = np.iinfo(dtype) if dtype.kind in "iu" and array.size else None
        if limits and (array.max() > limits.max or array.min() < limits.min):
            raise bad_request(f"{expected}, got one that is too large for {dtype}")
        with np.errstate(over="ignore"):
            return array.astype(dtype)

    def _picture(self, content: bytes, where: str = "") -> Array:
        """Decode a PNG or JPEG to float32 [*shape], 0..1, and resize it; the size is checked before decoding."""
        height, width, channels = self.shapes[self.picture]
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    size = f"{picture.width}x{picture.height}"
                    raise bad_request(f"{where}expected a picture of at most {MAX_PIXELS} pixels, got {size}")
                if picture.mode.startswith(("I", "F")):
                    raise bad_request(f"{where}expected 8 bits a channel, got mode {picture.mode}")
                converted = picture.convert("L" if channels == 1 else "RGB")
                # As in all targets; a picture of this size stays unchanged.
                resized = converted.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(resized, np.float32)
        except PredictionException:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise any exception
            message = f"{where}expected a PNG or JPEG picture, it cannot be decoded: {short(error)}"
            raise bad_request(message) from None
        return (pixels / np.float32(255)).reshape(height, width, channels)


def body_of(row: dict[str, Any]) -> bytes:
    """Return the body of a request, which TorchServe names `body` or `data`, or the only field of a form."""
    name = next((own for own in ("body", "data") if own in row), "")
    if not name and len(row) != 1:
        raise bad_request(f"{FORMS} as the body, got {f'the fields {sorted(row)[:5]}' if row else 'no body'}")
    value = row[name or next(iter(row))]
    if not name and not value:
        raise bad_request(f"{FORMS}, got a form; name the Content-Type (for JSON: application/json)")
    # With `decode_input_request`, the worker has parsed JSON and text.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Return True if a shape has the wanted sizes; a name stands for any size."""
    return len(shape) == len(wanted) and all(
        own >= 0 if isinstance(size, str) else own == size for own, size in zip(shape, wanted, strict=True)
    )


def bad_request(message: str) -> PredictionException:
    return PredictionException(message, 400)


def short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return f"the keys {sorted(value)[:5]}"[:200]
    names = {list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), repr(value))
