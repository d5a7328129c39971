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


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_whole_numbers(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, AddValueToTensor and AddSingleValueAndAdvance: the whole range of each."""
    limits = np.iinfo(dtype)
    values = [int(limits.min), 0, 1, int(limits.max)]
    answered = echo(server, dtype, values)
    assert answered == values
    assert all(type(one) is int for one in answered)


def test_booleans(server: ServerProcess) -> None:
    """json_tensor.cc: true and false, both ways."""
    assert echo(server, "bool", [True, False]) == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decimals_come_back_as_they_went(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, WriteDecimal: an answer read at the tensor's precision is the value to the bit, no shorter."""
    kind = np.dtype(dtype).type
    limits = np.finfo(kind)
    values = [
        0.1,
        1 / 3,
        1e-30,
        2.0**20 + 0.5,
        float(limits.max),
        float(limits.min),
        float(limits.tiny),
        -0.0,
        123456.7,
    ]
    answered = echo(server, dtype, [float(kind(one)) for one in values])
    for sent, got in zip(values, answered, strict=True):
        assert kind(got) == kind(sent)
        assert math.copysign(1, got) == math.copysign(1, sent)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_decimals_keep_their_point(server: ServerProcess, dtype: str) -> None:
    """json_tensor.cc, WriteDecimal appends .0, and whole JSON numbers are taken for decimals."""
    answer = predict(server, "types", {"signature_name": dtype, "instances": [1, 2.0, -3, 9000000]})
    assert answer.status == 200
    assert all(isinstance(one, float) for one in answer.json()["predictions"])
    assert answer.json() == {"predictions": [1.0, 2.0, -3.0, 9000000.0]}


def test_float32_is_written_at_its_own_precision(server: ServerProcess) -> None:
    """json_tensor.cc, WriteDecimal: 0.2 of 32 bits is 0.2 in JSON, not 0.20000000298023224."""
    answer = predict(server, "types", {"signature_name": "float32", "instances": [0.2, 0.1]})
    assert answer.json() == {"predictions": [0.2, 0.1]}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_json_has_not(server: ServerProcess, dtype: str) -> None:
    """api_rest, "JSON conformance": NaN, Infinity and -Infinity, bare, in requests and in answers."""
    body = b'{"signature_name": "%s", "instances": [NaN, Infinity, -Infinity, 1]}' % dtype.encode()
    answer = predict(server, "types", body)
    assert answer.status == 200, answer.body
    text = "".join(answer.body.decode().split())
    assert text == '{"predictions":[NaN,Infinity,-Infinity,1.0]}'


def test_inf_is_short_for_infinity(server: ServerProcess) -> None:
    """json_tensor.cc parses with rapidjson's kParseNanAndInfFlag, which takes Inf as well."""
    answer = predict(server, "types", b'{"signature_name": "float32", "instances": [Inf, -Inf]}')
    assert answer.status == 200, answer.body
    assert "".join(answer.body.decode().split()) == '{"predictions":[Infinity,-Infinity]}'


def test_a_models_own_nan_and_infinities(server: ServerProcess) -> None:
    """api_rest, "JSON conformance": as above for what a model makes, here from 0 * NaN and infinities."""
    answer = predict(server, "shapes", {"signature_name": "odd", "instances": [1.0]})
    assert "".join(answer.body.decode().split()) == '{"predictions":[[NaN,Infinity,-Infinity]]}'


def test_half_precision_has_json(server: ServerProcess) -> None:
    """Unlike the original: json_tensor.cc has no case DT_HALF (501 going in, 400 coming out), a gap and no promise."""
    assert value(server, "types", {"signature_name": "float16", "instances": [1.5]}) == [1.5]
    assert value(server, "types", {"signature_name": "to_half", "instances": [1.5]}) == [1.5]


def test_strings(server: ServerProcess) -> None:
    """api_rest, "Encoding binary values": UTF-8 text is a JSON string, both ways."""
    texts = ["plain", "", "größer 漢字 \U0001f600", 'quote " backslash \\ \n tab \t']
    assert echo(server, "string", texts) == texts
    body = rb'{"signature_name": "string", "instances": ["\u00e9\ud83d\ude00"]}'
    assert value(server, "types", body) == ["é\U0001f600"]


def test_binary_strings(server: ServerProcess) -> None:
    """api_rest: {"b64": ...} is bytes for any string input; an output is bytes if its name ends in _bytes."""
    raw = b"\x89PNG\x00\xff\xfe"
    for name in ("string", "bytes_in"):
        assert value(server, "types", {"signature_name": name, "instances": [b64(b"text"), b64(b"")]}) == [
            "text",
            "",
        ]
    for request in ("instances", "inputs"):
        body: dict[str, Any] = {"signature_name": "bytes_out", request: [b64(raw), "text"]}
        assert value(server, "types", body) == [b64(raw), b64(b"text")]
    body = {"signature_name": "bytes_in", "instances": [{"x_bytes": b64(b"a")}, {"x_bytes": "b"}]}
    assert value(server, "types", body) == ["a", "b"]
    body = {"signature_name": "bytes_and_text", "instances": [b64(b"a")]}
    assert value(server, "types", body) == [{"image_bytes": b64(b"a"), "text": "A"}]
    body = {"signature_name": "bytes_and_text", "inputs": {"x": [b64(b"a"), "b"]}}
    assert value(server, "types", body) == {"image_bytes": [b64(b"a"), b64(b"b")], "text": ["A", "B"]}


def test_base64_without_padding(server: ServerProcess) -> None:
    """json_tensor.cc decodes with absl::Base64Unescape, for which the padding is optional."""
    assert value(server, "types", {"signature_name": "string", "instances": [{"b64": "YQ"}]}) == ["a"]


@pytest.mark.parametrize("content", ["&&&", "YQ=", "Y"])
def test_what_is_not_base64(server: ServerProcess, content: str) -> None:
    """json_tensor.cc, JsonDecodeBase64Object."""
    answer = predict(server, "types", {"signature_name": "string", "instances": [{"b64": content}]})
    assert answer.status == 400


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        ("float32", "'text'"),
        ("float32", "true"),
        ("float32", "null"),
        ("float32", "{'b64': 'YQ=='}"),
        ("float64", "'1.0'"),
        ("int32", "1.5"),
        ("int32", "1.0"),
        ("int32", "true"),
        ("int32", "'1'"),
        ("int32", "2147483648"),
        ("int32", "-2147483649"),
        ("int64", "9223372036854775808"),
        ("int64", "1e3"),
        ("uint32", "-1"),
        ("uint32", "4294967296"),
        ("uint64", "-1"),
        ("bool", "0"),
        ("bool", "'true'"),
        ("string", "1"),
        ("string", "true"),
        ("string", "null"),
    ],
)
def test_values_of_the_wrong_type(server: ServerProcess, dtype: str, wrong: str) -> None:
    """json_tensor.cc, TypeError: nothing is cast, only whole numbers to decimals."""
    for request in ("instances", "inputs"):
        body = f'{{"signature_name": "{dtype}", "{request}": [{wrong}]}}'.replace("'", '"').encode()
        answer = predict(server, "types", body)
        assert answer.status == 400, answer.body


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("float32", "16777217"), ("float32", "-16777217"), ("float32", "1e39"), ("float64", "9007199254740993")],
)
def test_numbers_that_do_not_fit(server: ServerProcess, dtype: str, number: str) -> None:
    """json_tensor.cc, IsLosslessDecimal: whole numbers above the mantissa and values out of range are refused."""
    answer = predict(server, "types", f'{{"signature_name": "{dtype}", "instances": [{number}]}}'.encode())
    assert answer.status == 400, answer.body


def test_the_largest_whole_numbers_that_fit(server: ServerProcess) -> None:
    """json_tensor.cc, IsLosslessDecimal: 2^24 - 1 and 2^53 - 1."""
    assert value(server, "types", {"signature_name": "float32", "instances": [16777215]}) == [16777215.0]
    assert value(server, "types", {"signature_name": "float64", "instances": [2**53 - 1]}) == [
        float(2**53 - 1)
    ]
