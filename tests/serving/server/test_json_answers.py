"""Answers are put together from pieces: read by any JSON parser, they are what the protocols' documents say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.server.protocols import oip_codec, tfs_json_answers
from serving.server.protocols.oip_body import HEADER_LENGTH, Asked, respond
from serving.server.signature import Array, dtype_of
from serving.server.versions import Version

VERSION = cast(Version, SimpleNamespace(model='fa"shion', number=3))
few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["y", "logits", "100%", '"%b"', "\0", "é", "crop_bytes"])
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
@given(st.dictionaries(names, st.tuples(tensors, st.booleans()), min_size=1), st.none() | st.text(max_size=9))
def test_an_answer_of_the_open_inference_protocol(
    outputs: dict[str, tuple[Array, bool]], identity: str | None
) -> None:
    identity = identity if identity is None else identity.encode("utf-8", "replace").decode()
    asked = Asked({}, {name: binary for name, (_, binary) in outputs.items()}, id=identity)
    response = respond(VERSION, asked, {name: array for name, (array, _) in outputs.items()})
    sent = dict(response.headers)
    length = int(sent.get(HEADER_LENGTH.encode(), str(len(response.body))))
    document = json.loads(response.body[:length])
    assert (document["model_name"], document["model_version"]) == ('fa"shion', "3")
    assert document.get("id") == identity
    assert (HEADER_LENGTH.encode() in sent) == any(binary for _, binary in outputs.values())
    tail = response.body[length:]
    for answered, (name, (array, binary)) in zip(document["outputs"], outputs.items(), strict=True):
        assert (answered["name"], answered["shape"]) == (name, list(array.shape))
        assert answered["datatype"] == oip_codec.datatype(dtype_of(array))
        if binary:
            size = answered["parameters"]["binary_data_size"]
            assert tail[:size] == oip_codec.to_raw(array)
            tail = tail[size:]
        else:
            same(answered["data"], values(array.reshape(-1)))
    assert tail == b""


@few
@given(st.dictionaries(names.filter(lambda name: name != "crop_bytes"), tensors, min_size=1))
def test_an_answer_in_column_form(outputs: dict[str, Array]) -> None:
    answered = json.loads(tfs_json_answers.write(outputs, rows=False))["outputs"]
    for name, array in outputs.items():
        same(answered[name] if len(outputs) > 1 else answered, values(array))


batches = st.integers(1, 4).flatmap(
    lambda n: st.dictionaries(
        names.filter(lambda name: name != "crop_bytes"),
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
    answered = json.loads(tfs_json_answers.write(outputs, rows=True))["predictions"]
    for name, array in outputs.items():
        column = [row[name] for row in answered] if len(outputs) > 1 else answered
        expected = values(array)
        assert len(column) == len(expected)
        kind = object if array.dtype == object else np.float32
        with np.errstate(over="ignore"):
            np.testing.assert_equal(np.asarray(column, kind), np.asarray(expected, kind))
