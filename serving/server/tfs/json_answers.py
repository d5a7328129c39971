"""The JSON that TensorFlow Serving answers with: tensors in rows or columns, messages in lines.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.tensors.signature import Array, Tensors, is_floating


def write(outputs: Tensors, rows: bool) -> bytes:
    """The response body. Raises `InvalidRequestError` where row form is asked of outputs that are no rows."""
    if not rows:
        columns = {name: dumps(_value(name, array)) for name, array in outputs.items()}
        return wrap("outputs", _template(columns) % (*columns.values(),))
    count = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise InvalidRequestError(
                f"Tensor name: {name} has no shape information: it is no row; ask in column form, with 'inputs'"
            )
        if count not in (-1, len(array)):
            raise InvalidRequestError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {count}; "
                "ask in column form, with 'inputs'"
            )
        count = len(array)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return wrap("predictions", dumps(_value(name, array)))
    row = _template(outputs)
    texts = [_row_texts(name, array) for name, array in outputs.items()]
    return wrap("predictions", b"[%b]" % b",".join([row % values for values in zip(*texts, strict=True)]))


def wrap(key: str, value: bytes) -> bytes:
    """An object of one member, on lines of its own as the original has it; what is inside stays on one line."""
    return b'{\n    "%b": %b\n}' % (key.encode(), value)


def indented(document: object) -> bytes:
    """A JSON document in lines, as protobuf prints messages: scripts look for '"state": "AVAILABLE"'."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def dumps(document: object) -> bytes:
    """JSON in which numbers that are not finite stand as NaN, Infinity and -Infinity, as the original writes them."""
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:  # which nothing here but such a number becomes
        return text
    return json.dumps(document, default=lambda array: array.tolist(), separators=(",", ":")).encode()


def _value(name: str, array: Array) -> object:
    if array.dtype.kind == "c":
        raise InvalidRequestError(
            f"Failed to write JSON value for tensor type: {array.dtype.name}, output {name}"
        )
    if array.dtype != np.object_:
        array = array.astype(np.float32) if is_floating(array) and array.itemsize == 2 else array
        return np.ascontiguousarray(array) if array.ndim else array.item()
    if name.endswith("_bytes"):
        encoded = np.frompyfunc(lambda value: {"b64": base64.b64encode(value).decode()}, 1, 1)(array)
    else:
        encoded = np.frompyfunc(lambda value: value.decode("utf-8", "replace"), 1, 1)(array)
    return encoded.tolist() if isinstance(encoded, np.ndarray) else encoded


def _row_texts(name: str, array: Array) -> list[bytes]:
    """The JSON of each row."""
    value = _value(name, array)
    if isinstance(value, list) or array.size == 0:
        return [dumps(row) for row in value]  # type: ignore[attr-defined]
    opening, closing = b"[" * (array.ndim - 1), b"]" * (array.ndim - 1)
    rows = dumps(value)[array.ndim : -array.ndim].split(closing + b"," + opening)
    return [opening + row + closing for row in rows]


def _template(names: Iterable[str]) -> bytes:
    """An object of one value each, to be filled in; of one name, its value."""
    members = [orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in names]
    return b"{" + b",".join(members) + b"}" if len(members) > 1 else b"%b"
