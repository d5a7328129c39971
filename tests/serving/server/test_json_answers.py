"""Answers of TensorFlow Serving's REST, read by any JSON parser, say what the tensors hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.server.tensors.signature import Array
from serving.server.tfs.json_tensors import write

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["y", "logits", "100%", '"%b"', "\0", "é"])
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=4)
kinds = st.sampled_from(["bool", "int8", "uint64", "int64", "float16", "float32", "float64"])


def numbers(shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Array]:
    finite = {"allow_nan": False, "allow_infinity": False}
    return kinds.flatmap(
        lambda kind: npst.arrays(kind, shape, elements=finite if kind.startswith("f") else None)
    )


def strings(values: list[str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = [value.encode() for value in values]
    return array


shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
tensors = numbers(shapes) | texts.map(strings)


def values(array: Array) -> Any:
    """What a tensor is in JSON."""
    if array.dtype != np.object_:
        return json.loads(
            json.dumps((array.astype(np.float32) if array.dtype == np.float16 else array).tolist())
        )
    return [value.decode() for value in array]


def same(answered: object, expected: object) -> None:
    np.testing.assert_equal(np.asarray(answered, object).shape, np.asarray(expected, object).shape)
    for left, right in zip(np.asarray(answered, object).flat, np.asarray(expected, object).flat, strict=True):
        assert left == right or np.float32(left) == np.float32(right)


@few
@given(st.dictionaries(names, tensors, min_size=1))
def test_an_answer_in_column_form(outputs: dict[str, Array]) -> None:
    answered = json.loads(write(outputs, rows=False))["outputs"]
    for name, array in outputs.items():
        same(answered[name] if len(outputs) > 1 else answered, values(array))


batches = st.integers(1, 4).flatmap(
    lambda n: st.dictionaries(
        names,
        numbers(
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3).map(lambda shape: (n, *shape))
        )
        | st.lists(st.text("ab],[", max_size=3), min_size=n, max_size=n).map(strings),
        min_size=1,
    )
)


@few
@given(batches)
@example({"a": np.zeros((2, 0, 3), np.float32), "b": np.array([1.5, np.nan], np.float32)})
@example({"a": np.array([[1, np.inf], [np.nan, 2]], np.float32), "b": np.arange(8).reshape(2, 2, 2)})
def test_an_answer_in_row_form(outputs: dict[str, Array]) -> None:
    answered = json.loads(write(outputs, rows=True))["predictions"]
    for name, array in outputs.items():
        column = [row[name] for row in answered] if len(outputs) > 1 else answered
        expected = values(array)
        assert len(column) == len(expected)
        kind = object if array.dtype == object else np.float32
        with np.errstate(over="ignore"):
            np.testing.assert_equal(np.asarray(column, kind), np.asarray(expected, kind))
