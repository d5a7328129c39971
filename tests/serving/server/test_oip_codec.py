"""Requests and responses of the Open Inference Protocol, read and written without a server."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.server.errors import InvalidRequestError, TooLargeError
from serving.server.http import Request
from serving.server.metrics import RequestRecord
from serving.server.oip import codec
from serving.server.oip.body import HEADER_LENGTH, parse
from serving.server.tensors.signature import Array, Signature, TensorSpec, dtype_of, strings

from .test_json_numbers import KINDS, values

REFUSED = (InvalidRequestError, TooLargeError)
SIGNATURE = Signature(
    (
        TensorSpec("image", "float32", (-1, 28, 28, 1)),
        TensorSpec("n", "int64", (-1,)),
        TensorSpec("text", "bytes", None),
    ),
    (TensorSpec("y", "float32", (-1, 10)),),
)
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
tensors = st.sampled_from(KINDS).flatmap(
    lambda kind: npst.arrays(
        kind,
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if "float" in kind else None,
    )
)
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4).map(
    lambda texts: strings([text.encode() for text in texts])
)


def described(array: Array) -> codec.Described:
    return sized(dtype_of(array), *array.shape)


def sized(dtype: str, *shape: int) -> codec.Described:
    return codec.Described(TensorSpec("x", dtype, shape), dtype, shape)


@given(tensors | texts)
@example(np.array([[0.5, -2], [1e30, 3]], "bfloat16"))
def test_tensors_survive_the_raw_form_and_json(array: Array) -> None:
    forms = [codec.from_raw(described(array), codec.to_raw(array))]
    forms.append(codec.from_json(described(array), orjson.loads(written(codec.to_json("x", array)))))
    for back in forms:
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


def written(data: object) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(max_size=40))
def test_strings_are_split_where_their_lengths_say_or_refused(values: list[bytes], raw: bytes) -> None:
    array = strings(values)
    assert codec.from_raw(described(array), codec.to_raw(array)).tolist() == values
    with contextlib.suppress(InvalidRequestError):
        assert codec.to_raw(codec.from_raw(described(array), raw)) == raw


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "message"),
    [
        ("picture", "FP32", [1], "unknown input 'picture'; the model has image, n, text"),
        (["image"], "FP32", [1], r"unknown input \['image'\]"),
        ("n", "INT", [1], "'n': expected datatype INT64, got 'INT'"),
        ("n", "BYTES", [1], "'n': expected datatype INT64, got 'BYTES'"),
        ("n", {}, [1], "'n': expected datatype INT64, got {}"),
        ("image", "INT64", [1], r"expected datatype FP32 \(or BYTES: encoded pictures\), got 'INT64'"),
        ("n", "INT64", [-1], r"non-negative integers and .* got \[-1\]"),
        ("n", "INT64", [True], "non-negative integers"),
        ("n", "INT64", "12", "non-negative integers and .* got '12'"),
        ("n", "INT64", [0, 2**62, 2**62], "and 576460752303423488 elements"),
        ("n", "INT64", [1] * 33, "at most 32 non-negative integers"),
        ("text", "BYTES", [1, 200_000], "at most 131072 elements of BYTES, got 200000"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_its_data_are_read(
    name: object, datatype: object, shape: object, message: str
) -> None:
    with pytest.raises(REFUSED, match=message):
        codec.describe(SIGNATURE, name, datatype, shape, {}, {})


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("float32", [[1], [2]], r"expected data of shape \[2\], got \[2, 1\]"),
        ("bytes", ["a", 1], "expected strings for BYTES, got integers, strings"),
        ("bytes", ["a"], r"expected data of shape \[2\], got \[1\]"),
    ],
)
def test_json_that_does_not_fit_is_refused(kind: str, data: object, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        codec.from_json(sized(kind, 2), data)


def test_bytes_that_are_no_booleans_are_refused() -> None:
    """Runtimes take a bool of 2 for what they like."""
    with pytest.raises(InvalidRequestError, match="expected bytes of 0 or 1 for BOOL"):
        codec.from_raw(sized("bool", 3), b"\0\1\2")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1, np.nan]), "holds NaN or infinity"),
        (np.array([1, np.inf], "bfloat16"), "holds NaN or infinity"),
        (strings([b"\xff"]), "bytes that are no text"),
        (np.array([1j]), "complex128 numbers"),
    ],
)
def test_what_json_cannot_carry_is_said_and_not_turned_into_null(array: Array, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{message}.*ask for binary_data"):
        codec.to_json("y", array)


def some(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these members, each as it should be or anything else."""
    return st.fixed_dictionaries({}, optional={name: value | values for name, value in known.items()})


parameters = some(
    binary_data_size=st.integers(-1, 40), timeout=st.integers(), binary_data_output=st.booleans()
)
inputs = some(
    name=st.sampled_from(["image", "n", "text", "y"]),
    datatype=st.sampled_from([*codec.DTYPES, "FP8"]),
    shape=st.lists(st.integers(0, 4) | st.integers(0, 2**64), max_size=5),
    data=values,
    parameters=parameters,
)
outputs = some(name=st.just("y"), parameters=some(binary_data=st.booleans()))
documents = some(
    id=values,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(outputs, max_size=2),
    parameters=parameters,
)


def _framed(document: object, tail: bytes, length: str | None) -> tuple[bytes, dict[str, str]]:
    header = json.dumps(document).encode()
    return header + tail, {HEADER_LENGTH: length if length is not None else str(len(header))}


framed = st.builds(
    _framed,
    documents | values,
    st.binary(max_size=40),
    st.none() | st.sampled_from(["0", "-1", "7", "9" * 5000, "", "1e3", "\xb2"]),
)


@settings(few, max_examples=200)
@given(framed)
def test_garbage_is_refused_in_few_words(given: tuple[bytes, dict[str, str]]) -> None:
    body, headers = given
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    told = ""
    try:
        parse(Request({}, raw, body, RequestRecord("POST", "/", "")), SIGNATURE)
    except REFUSED as error:
        told = str(error)
    assert len(told) < 400
