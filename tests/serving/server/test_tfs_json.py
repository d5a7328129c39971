"""TensorFlow Serving's JSON, where a server would answer the same without it: what is odd, and what is large."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.server.errors import InvalidRequestError
from serving.server.tensors.signature import Array
from serving.server.tfs.json import parse, write


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "bool", "int8", "uint64"])
def test_numbers_of_every_dtype_are_written(dtype: str, rows: bool) -> None:
    values = np.array([[1, 0], [0, 1]]).astype(dtype)
    empty: Array = np.zeros((2, 0), dtype)
    numbers = values.tolist() if dtype == "bool" else [[1, 0], [0, 1]]
    written = json.loads(write({"y": values, "none": empty, "first": values[:, 0]}, rows))
    if rows:
        assert written["predictions"] == [
            {"y": numbers[0], "none": [], "first": numbers[0][0]},
            {"y": numbers[1], "none": [], "first": numbers[1][0]},
        ]
    else:
        assert written["outputs"] == {"y": numbers, "none": [[], []], "first": [row[0] for row in numbers]}


def test_what_is_not_finite_is_written_in_rows_of_several_outputs() -> None:
    y = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    text = write({"y": y, "z": y[:, 0]}, rows=True)
    assert (
        text == b'{\n    "predictions": [{"y":[1.5,NaN],"z":1.5},{"y":[Infinity,-Infinity],"z":Infinity}]\n}'
    )


def test_what_is_not_finite_is_read() -> None:
    read_back = parse(b'{"NaN": "-Infinity", "y": [NaN, Infinity, -Infinity, 1]}')
    assert read_back == {"NaN": "-Infinity", "y": [pytest.approx(np.nan, nan_ok=True), np.inf, -np.inf, 1]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"signature_name": "\\ud800", "instances": [NaN]}',
        b'{"instances": [NaN, ' + b"9" * 5000 + b"]}",
        b'{"instances": [NaN, Inf]}',
        b"[" * 100_000 + b"NaN",
        b'{"instances": [NaN], "instances',
    ],
)
def test_garbage_next_to_nan_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="expected JSON"):
        parse(body)
