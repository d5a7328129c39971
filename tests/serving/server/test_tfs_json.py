"""TensorFlow Serving's JSON: the cases that its own documentation tells of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.server.errors import InvalidRequestError
from serving.server.protocols.tfs_json import parse, read, write
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
    assert text == b'{"predictions":[1.5,NaN,Infinity]}'
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


@pytest.mark.parametrize(
    ("dtype", "number"), [("float32", 2**24 + 1), ("float64", 2**53 + 1), ("float16", 1e6)]
)
def test_a_number_that_its_dtype_would_round_is_refused(dtype: str, number: float) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1,)),), ())
    with pytest.raises(InvalidRequestError, match="without loss of precision"):
        read({"instances": [1.0, number]}, signature)
    inputs, _ = read({"instances": [np.inf, np.nan, 1.0]}, signature)
    np.testing.assert_array_equal(inputs["x"].astype(float), [np.inf, np.nan, 1.0])
