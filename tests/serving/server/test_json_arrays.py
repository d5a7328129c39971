"""Arrays that are cut out of JSON mean what they mean in the whole document: the plain reader is the judge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.server.errors import InvalidRequestError
from serving.server.http import Request
from serving.server.protocols import json_arrays, oip_body, oip_head, tfs_json
from serving.server.protocols.json_arrays import JsonArray, cut
from serving.server.protocols.json_numbers import lists, numbers
from serving.server.signature import Array, Signature, TensorSpec

untimed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS = ("bool", "int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64")
SIGNATURE = Signature(
    (TensorSpec("x", "float32", None), TensorSpec("n", "int64", None)), (TensorSpec("y", "float32", None),)
)
EDGES = [
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.0",
    "1e2",
    "1E+2",
    "1e-400",
    "5e-324",
    "0.1",
    "1e308",
    "16777216",
    "16777217",
    "3.5e38",
    "65504",
    "65520",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.1000000055511151231257827021181583404541015625",
    "2.2250738585072011e-308",
]
WRONG = (
    "true",
    "null",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "01",
    "1.",
    ".5",
    "+1",
    "1e",
    '"1"',
    "{}",
    "",
    "[",
    "]",
    "1 2",
    "\xff",
)

numerals = (
    st.sampled_from(EDGES)
    | st.integers(-(2**65), 2**65).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
items = st.one_of(*[numerals] * 9, st.sampled_from(WRONG))
spaces = st.sampled_from(["", "", " ", "\n\t"])
even = st.recursive(
    numerals,
    lambda inner: st.integers(1, 3).flatmap(lambda n: inner.map(lambda text: f"[{', '.join([text] * n)}]")),
)
uneven = st.recursive(
    items,
    lambda inner: st.tuples(spaces, st.lists(inner, max_size=4)).map(
        lambda at: f"[{at[0]}{(',' + at[0]).join(at[1])}]"
    ),
    max_leaves=12,
)
arrays = (even | uneven).map(lambda text: (text if text.startswith("[") else f"[{text}]").encode("latin-1"))


def outcome(read: Callable[[], Array]) -> tuple[str, object, object]:
    """What a reader makes of a text: an array's dtype, shape and bits, or the words of its refusal."""
    try:
        array = read()
    except InvalidRequestError as error:
        return "refused", str(error), None
    return array.dtype.name, array.shape, array.tobytes()


@untimed
@given(st.sampled_from(KINDS), arrays)
@example("float32", b"[[1,2,3],[4]]")
@example("float32", b"[[1,2],[3,4,5],[6]]")
@example("float32", b"[[1],[],[2,3]]")
@example("float32", b"[[[1],[2]],[[3,4]]]")
@example("float32", b"[[1],2]")
@example("float32", b"[1,[2]]")
@example("float32", b"[[],[]]")
@example("float32", b"[[1,2],[3,true]]")
@example("uint64", b"[18446744073709551615, 9007199254740993]")
@example("int64", b"[9007199254740993, 1.0]")
@example("int64", b"[18446744073709551616]")
def test_numbers_are_those_of_the_plain_reader(kind: str, text: bytes) -> None:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        with pytest.raises((ValueError, RuntimeError)):
            JsonArray(text)
        return
    try:
        array = JsonArray(text)
    except (ValueError, RuntimeError):  # Numbers of which 64 bits are not enough are orjson's.
        return
    assert outcome(lambda: numbers("x", kind, array)) == outcome(lambda: numbers("x", kind, data))
    assert array.lists() == data


@pytest.mark.parametrize(
    "text",
    [b"[" * depth + b"1" + b"]" * depth for depth in (31, 32, 33, 1000)]
    + [b"[" + b"9" * 100_000 + b".5]", b"[0." + b"3" * 100_000 + b"]", b"[" + b"[]," * 5000 + b"[1]]"],
)
def test_deep_and_long_texts_are_read_or_refused_alike(text: bytes) -> None:
    try:
        array = JsonArray(text)
    except (ValueError, RuntimeError):
        return
    assert outcome(lambda: numbers("x", "float64", array)) == outcome(
        lambda: numbers("x", "float64", orjson.loads(text))
    )


def test_an_array_nested_too_deep_is_refused_in_words() -> None:
    depth = 1023
    document = b'{"data": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    _, found = cut(document, oip_body.DATA, 0)
    for array in found:
        with pytest.raises(InvalidRequestError):
            numbers("x", "float32", array)


words = st.sampled_from(
    ["data", "id", "inputs", "instances", "name", "x", "n", "shape", 'a"data": [1]', "é", "\0", "\x010"]
)
values = st.recursive(
    st.none() | st.booleans() | words | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=16,
)


@untimed
@given(
    st.dictionaries(words, values, max_size=4),
    st.booleans(),
    st.sampled_from([oip_body.DATA, tfs_json.ARRAY]),
)
def test_a_cut_document_is_the_document(document: object, ascii_only: bool, key: re.Pattern[bytes]) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    rest, found = cut(text, key, 0)
    assert lists_of(orjson.loads(rest), found) == orjson.loads(text)


def lists_of(value: object, found: list[JsonArray]) -> object:
    array = json_arrays.place(value, found) if found else None
    if array is not None:
        return lists(array)
    if isinstance(value, dict):
        return {name: lists_of(inner, found) for name, inner in value.items()}
    return [lists_of(inner, found) for inner in value] if isinstance(value, list) else value


ONE = '{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": @}'
DATA = (
    "[1, 2, 3, 4]",
    "[[1, 2], [3, 4.5]]",
    "[[1, 2], [3]]",
    "[1, 2, 3]",
    "[]",
    '["a"]',
    "[1, NaN, 3, 4]",
    "[1, 2",
    "7",
)
HEADS = [
    '{"inputs": [@]}',
    '{"id": "a", "inputs": [@], "outputs": []}',
    '{"inputs": [@], "parameters": {"data": [1, 2]}}',
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [9, 9], "data": [1, 2]}]}',
    '{"inputs": [@], "inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [5]}]}',
    '{"inputs": [{"data": [7], "shape": [1], "datatype": "INT64", "name": "n"}, @]}',
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "d\\u0061ta": [1]}], "parameters": {"data": [3]}}',
    '{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": "\\u00000"}], "id": "\\u0001"}',
    '{"id": "", "inputs": [@], "parameters": {"id": "b"}}',
    '{"parameters": {"id": "b"}, "inputs": [@]}',
    '{"parameters": {"id": "b"}, "inputs": [@], "id": "\\u0001"}',
    '{"id": "a", "id": "b", "inputs": [@]}',
    '{"id": "\xe9", "inputs": [@]}',
    '{"id": 7, "inputs": [@]}',
    '{"id": "a", "inputs": [@], "parameters": {"timeout": -1}}',
    '\ufeff{"inputs": [@]}',
    '{"inputs": [@]} x',
    '{"inputs": [@, @]}',
    '{"id": "a", "inputs": [@}',
]
OIP = [
    *('{"inputs": [@]}'.replace("@", ONE.replace("@", data)) for data in DATA),
    *(head.replace("@", ONE.replace("@", DATA[0])) for head in HEADS),
]
ROW = json.dumps(np.arange(400.0).reshape(2, 200).tolist())
BODIES = [
    '{"instances": @}',
    '{"inputs": @}',
    '{"inputs": {"x": @, "n": [1]}}',
    '{"inputs": {"x": [1], "n": @}}',
    '{"instances": [{"x": @, "n": 1}, {"n": 2, "x": @}]}',
    '{"instances": [{"x": @, "n": 1}, {"n": 2, "x": [1]}]}',
    '{"instances": [{"x": @, "n": 1}, {"n": 2, "x": ["a"]}]}',
    '{"instances": @, "instances": [1]}',
    '{"instances": [{"x": 1, "n": @, "x": @}]}',
    '{"instances": @, "signature_name": @}',
    '{"instances": @, "context": @}',
    '{"instances": @',
    '{"instances": {"b64": @}}',
    '{"inputs": {"b64": @}}',
    '{"examples": [{"x": @}]}',
]
VALUES = [
    ROW,
    *(ROW.replace("1.0,", value, 1) for value in ("NaN,", "16777217,", "true,", "")),
    f"[{' ' * 2100}]",
]
TFS = [BODIES[0].replace("@", value) for value in VALUES] + [body.replace("@", ROW) for body in BODIES]


def read_oip(body: bytes) -> object:
    """What the front makes of a body, twice: the second time it may remember the head."""
    told: list[object] = []
    for _ in range(2):
        try:
            asked = oip_body.parse(Request("POST", "/", {}, {}, body), SIGNATURE)
        except InvalidRequestError as error:
            told.append(str(error))
        else:
            inputs = {
                name: (value.dtype.name, value.shape, value.tolist()) for name, value in asked.inputs.items()
            }
            told.append((inputs, asked.id, dict(asked.outputs), asked.binary, asked.timeout))
    assert told[0] == told[1]
    return told[0]


def read_tfs(body: bytes) -> object:
    """What the front makes of a body, for a model of one input and for one of two."""
    told: list[object] = []
    for signature in (SIGNATURE, Signature(SIGNATURE.inputs[:1], ())):
        try:
            document = tfs_json.parse(body)
            tfs_json.signature_name(document)
            inputs, rows = tfs_json.read(document, signature)
        except InvalidRequestError as error:
            told.append(str(error).partition(": [")[0])  # A glimpse of numbers may be spaced as they came.
        else:
            told.append(
                ({name: (value.dtype.name, value.shape, repr(value)) for name, value in inputs.items()}, rows)
            )
    return told


@pytest.mark.parametrize(("read", "text"), [(read_oip, t) for t in OIP] + [(read_tfs, t) for t in TFS])
def test_a_front_reads_a_body_as_it_would_without_cutting(
    read: Callable[[bytes], object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = text.encode()
    quick = read(body)
    for front in (oip_body, tfs_json):
        monkeypatch.setattr(front, "cut", lambda text, *_: (text, []))
    monkeypatch.setattr(oip_head, "LARGEST_REMEMBERED", 0)
    assert quick == read(body)


def test_what_is_remembered_of_requests_is_bounded_and_holds_no_values() -> None:
    oip_head._remembered.clear()
    for index in range(2 * oip_head.MOST_REMEMBERED):
        tensor = ONE.replace("@", "[1]").replace("[2, 2]", f"[3, {index}]")
        body = f'{{"id": "r{index}", "inputs": [{tensor}]}}'
        read_oip(body.encode())
        text = ONE.replace("@", f'["secret {index}"]').replace("FP32", "BYTES").replace("[2, 2]", "[1]")
        read_oip(f'{{"inputs": [{text}]}}'.encode())
    assert len(oip_head._remembered) == oip_head.MOST_REMEMBERED
    assert not any(b"secret" in text or b'"r' in text for text in oip_head._remembered)
