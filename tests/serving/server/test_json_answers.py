"""Answers of TensorFlow Serving's REST, read by any JSON parser, say what the tensors hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.server.oip.codec import strings
from serving.server.tensors.signature import Array
from serving.server.tfs.json_tensors import write

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["y", "logits", "100%", '"%b"', "\0", "é"])
kinds = st.sampled_from(["bool", "int8", "uint64", "int64", "float16", "float32", "float64"])
finite = {"allow_nan": False, "allow_infinity": False}


def numbers(shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Array]:
    return kinds.flatmap(lambda kind: npst.arrays(kind, shape, elements=finite if kind[0] == "f" else None))


def texts(least: int, most: int) -> st.SearchStrategy[Array]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.text("ab],[", max_size=3)
    lists = st.lists(text, min_size=least, max_size=most)
    return lists.map(lambda values: strings([value.encode() for value in values]))


def check(answered: object, array: Array) -> None:
    """Compare JSON with the tensor that it stands for."""
    if array.dtype == np.object_:
        assert answered == [value.decode() for value in array]
        return
    assert np.shape(answered) == np.shape(array.tolist())
    found, expected = np.asarray(answered, object).ravel(), array.ravel()
    for left, right in zip(found.tolist(), expected.tolist(), strict=True):
        np.testing.assert_equal(np.float32(left), np.float32(right))
        assert left == right or array.dtype.kind == "f"


@few
@given(
    st.dictionaries(
        names, numbers(npst.array_shapes(min_dims=0, max_dims=4, min_side=0)) | texts(1, 4), min_size=1
    )
)
def test_an_answer_in_column_form(outputs: dict[str, Array]) -> None:
    answered = json.loads(write(outputs, rows=False))["outputs"]
    for name, array in outputs.items():
        check(answered[name] if len(outputs) > 1 else answered, array)


def batch(rows: int) -> st.SearchStrategy[dict[str, Array]]:
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    tensors = numbers(shapes.map(lambda shape: (rows, *shape))) | texts(rows, rows)
    return st.dictionaries(names, tensors, min_size=1)


@few
@given(st.integers(1, 4).flatmap(batch))
@example({"a": np.zeros((2, 0, 3), np.float32), "b": np.array([1.5, np.nan], np.float32)})
@example({"a": np.array([[1, np.inf], [np.nan, 2]], np.float32), "b": np.arange(8).reshape(2, 2, 2)})
def test_an_answer_in_row_form(outputs: dict[str, Array]) -> None:
    answered: list[Any] = json.loads(write(outputs, rows=True))["predictions"]
    for name, array in outputs.items():
        rows = [row[name] for row in answered] if len(outputs) > 1 else answered
        assert len(rows) == len(array)
        if array.size:
            check(rows, array)
