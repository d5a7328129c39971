"""TensorFlow Serving's JSON: the cases that its own documentation tells of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.server.errors import InvalidRequestError
from serving.server.protocols.tfs_examples import input_of
from serving.server.protocols.tfs_json import parse, read
from serving.server.protocols.tfs_json_answers import write
from serving.server.signature import Array, Signature, Tensors, TensorSpec

TEXT = TensorSpec("text", "bytes", (-1,))
NUMBER = TensorSpec("number", "int64", (-1, 2))


def array(*values: bytes) -> Array:
    return np.array(values, object)


def test_strings_come_plain_or_as_base64() -> None:
    inputs, rows = read({"instances": ["häuser", {"b64": "/w=="}]}, Signature((TEXT,), ()))
    assert rows
    assert inputs["text"].tolist() == ["häuser".encode(), b"\xff"]


def test_several_inputs_come_by_name_in_rows_and_in_columns() -> None:
    signature = Signature((TEXT, NUMBER), ())
    row_form = {"instances": [{"text": "a", "number": [1, 2]}, {"text": "b", "number": [3, 4]}]}
    column_form = {"inputs": {"text": ["a", "b"], "number": [[1, 2], [3, 4]]}}
    for document in (row_form, column_form):
        inputs, _ = read(document, signature)
        assert inputs["text"].tolist() == [b"a", b"b"]
        assert inputs["number"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InvalidRequestError, match="list of objects as multiple input tensors required"):
        read({"instances": [1, 2]}, signature)
    with pytest.raises(InvalidRequestError, match="Missing named input: number in 'inputs' object"):
        read({"inputs": {"text": ["a"]}}, signature)


def test_outputs_named_bytes_go_back_as_base64_and_others_as_text() -> None:
    outputs: Tensors = {"label": array(b"cat"), "crop_bytes": array(b"\xff")}
    expected = {"predictions": [{"label": "cat", "crop_bytes": {"b64": "/w=="}}]}
    assert json.loads(write(outputs, rows=True)) == expected


def test_nan_is_written_as_the_original_writes_it() -> None:
    text = write({"y": np.array([1.5, np.nan, np.inf], np.float32)}, rows=True)
    assert text == b'{\n    "predictions": [1.5,NaN,Infinity]\n}'
    assert parse(b'{"instances": [NaN, -Infinity]}')["instances"] == [
        pytest.approx(np.nan, nan_ok=True),
        -np.inf,
    ]


def test_outputs_that_are_no_rows_are_refused_in_row_form() -> None:
    outputs: Tensors = {"mean": np.array(1.5, np.float32)}
    assert json.loads(write(outputs, rows=False)) == {"outputs": 1.5}
    with pytest.raises(InvalidRequestError, match="column form"):
        write(outputs, rows=True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"signature_name": "\\ud800", "instances": [NaN]}',
        b'{"instances": [NaN, ' + b"9" * 5000 + b"]}",
        b'{"instances": [NaN, Infinity, Inf, -Inf, InfX]}',
        b"[" * 100_000 + b"NaN",
        b'{"instances": [NaN], "instances',
    ],
)
def test_garbage_next_to_nan_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="JSON Parse error"):
        parse(body)


def test_inf_is_infinity_outside_of_strings() -> None:
    document = parse(b'{"a": [Inf, -Inf, NaN], "Inf \\" Inf": "-Inf"}')
    assert document == {"a": [np.inf, -np.inf, pytest.approx(np.nan, nan_ok=True)], 'Inf " Inf': "-Inf"}


FAULTS: list[tuple[str, object, str]] = [
    ("int32", [[1, 2], [3, 4], [5, 6, 7]], "element: 2 .*Error: .*Expecting tensor size: 2 but got: 3"),
    ("int32", [[1, 2], [3, 4], [[5, 6]]], r"element: 2 .*Expecting shape \[2\] but got: \[1,2\]"),
    ("int32", [1, [1]], r"Expecting shape \[\] but got: \[1\] .input 'x'."),
    ("bytes", [["a"], ["b", "c"]], "Expecting tensor size: 1 but got: 2"),
    (
        "int32",
        [[1, 2], ["a", "b"]],
        'element: 1 .*JSON Value: "a" Type: String is not of expected type: int32',
    ),
    ("int32", [[[1], 2]], "JSON Value: 2 found at incorrect level: 2 .*Expected at level: 2"),
    ("int32", [[1, [2]]], "Encountered list at unexpected level: 1 expected < 1"),
    ("int32", [[[1, 2], [3]]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ("float64", [None], "JSON Value: null Type: Null is not of expected type: double"),
    ("float32", [True], "JSON Value: true Type: True is not of expected type: float"),
    ("float32", [{"b64": "YQ=="}], 'JSON Value: {"b64":"YQ=="} Type: Object is not of expected type: float'),
    ("float32", [1.7e308], "JSON value: 1.7e.?308 to float without loss of precision"),
    ("float64", [10**400], "to double without loss of precision"),
    ("bytes", [[{"b64": 1}]], 'JSON Value: {"b64":1} not formatted correctly for base64 data'),
    ("bytes", [{"b64": "?"}], "^Unable to base64 decode"),
    ("bytes", [1.5], "JSON Value: 1.5 Type: Number is not of expected type: string"),
]


@pytest.mark.parametrize(("dtype", "value", "message"), FAULTS)
def test_what_is_no_tensor_is_told_in_the_original_s_words(dtype: str, value: object, message: str) -> None:
    """json_tensor_test.cc, SingleUnnamedTensorErrors and MultipleNamedTensorErrors."""
    signature = Signature((TensorSpec("x", dtype, None),), ())
    with pytest.raises(InvalidRequestError, match=message):
        read({"instances": value}, signature)
    with pytest.raises(InvalidRequestError) as column:
        read({"inputs": value}, signature)
    assert "element:" not in str(column.value)


def test_what_is_wrong_in_a_large_body_is_told_without_looking_at_each_value() -> None:
    signature = Signature((TensorSpec("x", "int32", None),), ())
    with pytest.raises(InvalidRequestError, match="got integers, strings; is not of expected type: int32"):
        read({"inputs": [1] * 200_000 + ["a"]}, signature)


def test_what_rapidjson_reads_beyond_json_is_read() -> None:
    assert parse(b'\xef\xbb\xbf{"instances": [1]}') == {"instances": [1]}
    assert np.isnan(parse(b'{"instances": [-NaN, "-NaN"]}')["instances"][0])  # type: ignore[index]


EXAMPLES: list[tuple[dict[str, object], str]] = [
    ({}, "When method is classify, key 'examples' is expected and was not found"),
    ({"context": [{"x": 1}]}, "Example must be JSON object but got JSON Array"),
    ({"examples": {"x": 1}}, "list/array"),
    ({"examples": [[{"x": 1}]]}, "Example must be JSON object"),
    ({"examples": [{"x": [10, None]}]}, "x has element with unexpected JSON type: Null"),
    ({"examples": [{"x": [10, 10.0]}]}, "feature: x expecting type: int64"),
    ({"examples": [{"x": [10, {"test": 10}]}]}, "x has element with unexpected JSON type: Object"),
    ({"examples": [{"x": [[10], 20]}]}, "x has element with unexpected JSON type: Array"),
    ({"examples": [{"x": 2**64 - 1}]}, "Only int64 is supported"),
    ({"examples": [{"x": 1.7e308}]}, "JSON value: 1.7e.?308 to float without loss of precision"),
]


@pytest.mark.parametrize(("document", "message"), EXAMPLES)
def test_what_is_no_example_is_told_in_the_original_s_words(
    document: dict[str, object], message: str
) -> None:
    """json_tensor_test.cc, ClassifyRegressRequestTest.JsonErrors."""
    with pytest.raises(InvalidRequestError, match=message):
        input_of(document)


@pytest.mark.parametrize(
    ("dtype", "number"), [("float32", 2**24 + 1), ("float64", 2**53 + 1), ("float16", 1e6)]
)
def test_a_number_that_its_dtype_would_round_is_refused(dtype: str, number: float) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1,)),), ())
    with pytest.raises(InvalidRequestError, match="without loss of precision"):
        read({"instances": [1.0, number]}, signature)
    inputs, _ = read({"instances": [np.inf, np.nan, 1.0]}, signature)
    np.testing.assert_array_equal(inputs["x"].astype(float), [np.inf, np.nan, 1.0])
