"""JSON values of every type: api_rest ("JSON mapping", "Encoding binary values"), util/json_tensor.cc and its test."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from ..processes import ServerProcess
from .clients import predict, value


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def echo(server: ServerProcess, dtype: str, values: list[Any]) -> Any:
    """The same values, as rows and as columns, which must be answered alike."""
    rows = value(server, "types", {"signature_name": dtype, "instances": values})
    assert json.dumps(value(server, "types", {"signature_name": dtype, "inputs": values})) == json.dumps(rows)
    return rows


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_whole_numbers_and_booleans(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, AddValueToTensor and AddSingleValueAndAdvance: the whole range of each."""
    limits = None if dtype == "bool" else np.iinfo(dtype)
    values = [int(limits.min), 0, 1, int(limits.max)] if limits else [True, False]
    answered = echo(server, dtype, values)
    assert answered == values
    assert [type(one) for one in answered] == [type(one) for one in values]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decimals_come_back_as_they_went(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, WriteDecimal: an answer read at the tensor's precision is the value to the bit, and no longer."""
    kind = np.dtype(dtype).type
    limits = np.finfo(kind)
    extremes = [float(limits.max), float(limits.min), float(limits.tiny)]
    values = [0.1, 1 / 3, 1e-30, 2.0**20 + 0.5, -0.0, 123456.7, *extremes]
    for sent, got in zip(values, echo(server, dtype, [float(kind(one)) for one in values]), strict=True):
        assert kind(got) == kind(sent)
        assert math.copysign(1, got) == math.copysign(1, sent)
    answer = predict(server, "types", {"signature_name": dtype, "instances": [1, 2.0, -3, 0.2]})
    assert b"[1.0,2.0,-3.0,0.2]" in answer.body


def test_numbers_that_json_has_not(server: ServerProcess) -> None:
    """api_rest, "JSON conformance": NaN, Infinity and -Infinity, bare, in requests and in answers."""
    for dtype in ("float32", "float64"):
        body = b'{"signature_name": "%b", "instances": [NaN, Infinity, -Infinity, 1]}' % dtype.encode()
        assert b"[NaN,Infinity,-Infinity,1.0]" in predict(server, "types", body).body
    assert predict(server, "types", {"signature_name": "complex64", "instances": [1.0]}).status == 501
    # Unlike the original, whose json_tensor.cc has no case DT_HALF: a gap and no promise.
    for dtype in ("float16", "bfloat16"):
        assert echo(server, dtype, [1.5, -2.0]) == [1.5, -2.0]


def test_strings(server: ServerProcess) -> None:
    """api_rest, "Encoding binary values": UTF-8 text is a JSON string, both ways."""
    texts = ["plain", "", "größer 漢字 \U0001f600", 'quote " backslash \\ \n tab \t', "a\x00b\x1f"]
    assert echo(server, "string", texts) == texts
    body = rb'{"signature_name": "string", "instances": ["\u00e9\ud83d\ude00"]}'
    assert value(server, "types", body) == ["é\U0001f600"]


def test_binary_strings(server: ServerProcess) -> None:
    """api_rest: {"b64": ...} is bytes for any string input; an output is bytes if its name ends in _bytes."""
    raw = b"\x89PNG\x00\xff\xfe"
    # json_tensor.cc decodes with absl::Base64Unescape, for which the padding is optional.
    for name in ("string", "bytes_in"):
        body: dict[str, Any] = {"signature_name": name, "instances": [b64(b"text"), b64(b""), {"b64": "YQ"}]}
        assert value(server, "types", body) == ["text", "", "a"]
    for request in ("instances", "inputs"):
        body = {"signature_name": "bytes_out", request: [b64(raw), "text"]}
        assert value(server, "types", body) == [b64(raw), b64(b"text")]
    body = {"signature_name": "bytes_in", "instances": [{"x_bytes": b64(b"a")}, {"x_bytes": "b"}]}
    assert value(server, "types", body) == ["a", "b"]
    body = {"signature_name": "bytes_and_text", "instances": [b64(b"a")]}
    assert value(server, "types", body) == [{"image_bytes": b64(b"a"), "text": "A"}]
    body = {"signature_name": "bytes_and_text", "inputs": {"x": [b64(b"a"), "b"]}}
    assert value(server, "types", body) == {"image_bytes": [b64(b"a"), b64(b"b")], "text": ["A", "B"]}


WRONG = {
    "float32": ('"text"', "true", "null", '{"b64": "YQ=="}', "[1, [2]]"),
    "float64": ('"1.0"',),
    "int32": ("1.5", "1.0", "true", '"1"', "2147483648", "-2147483649"),
    "int64": ("9223372036854775808", "1e3"),
    "uint32": ("-1", "4294967296"),
    "uint64": ("-1",),
    "bool": ("0", '"true"'),
    "string": ("1", "true", "null", '{"b64": "&&&"}', '{"b64": "YQ="}', '{"b64": "Y"}', '{"b64": 1}'),
}


@pytest.mark.parametrize("dtype", WRONG)
def test_values_of_the_wrong_type(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, TypeError: nothing is cast, only whole numbers to decimals."""
    for wrong in WRONG[dtype]:
        for request in ("instances", "inputs"):
            body = f'{{"signature_name": "{dtype}", "{request}": [{wrong}]}}'.encode()
            answer = predict(server, "types", body)
            assert answer.status == 400, (wrong, answer.body)
            assert "expected" in answer.error, answer.error
