"""Numbers of JSON: none is converted in silence."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server.errors import InvalidRequestError
from serving.server.tensors.json_numbers import flatten, numbers

KINDS = (
    *("bool", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)
finite = {"allow_nan": False, "allow_infinity": False}
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(**finite) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from([*KINDS, "bfloat16"]), values)
def test_whatever_comes_is_read_whole_or_refused(kind: str, data: object) -> None:
    with contextlib.suppress(InvalidRequestError):
        found = numbers("x", kind, data)
        flat, shape = flatten("x", data)
        assert (found.dtype, found.shape) == (np.dtype(kind), shape)
        if found.dtype.kind in "iu":
            assert found.ravel().tolist() == flat


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("int8", [1, 300], "expected integers of dtype int8, -128 to 127, got 1 to 300$"),
        ("uint8", [-1, 2], "expected integers of dtype uint8, 0 to 255, got -1 to 2$"),
        ("int64", [2**63], "-9223372036854775808 to 9223372036854775807, got 9223372036854775808 to"),
        ("uint64", [1, 2.0**64], "0 to 18446744073709551615, got fractions, integers$"),
        ("int32", [1.5, 2], "expected integers of dtype int32, .* got fractions, integers"),
        ("bool", [1, 0], "expected booleans, got integers"),
        ("float32", [1, "x" * 100_000], "expected numbers of dtype float32, got integers, strings$"),
        ("float32", [1, {}, None], "got integers, null, objects"),
        ("float32", [1.5, True], "got booleans, fractions"),
        ("float32", [1, [2]], "got integers, lists"),
        ("float32", [[1], 2], "expected lists of equal lengths"),
        ("float32", [[1, 2], [3]], "expected lists of equal lengths"),
        ("float32", json.loads("[" * 33 + "1" + "]" * 33), "at most 32 levels"),
    ],
)
def test_a_refusal_says_what_was_expected_and_what_came(kind: str, data: list[object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"input 'x': .*{message}"):
        numbers("x", kind, data)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_what_a_float_cannot_hold_is_infinite(kind: str) -> None:
    assert np.isinf(numbers("x", kind, [1e39, 1.0])).tolist() == [True, False]
    assert numbers("x", "bfloat16", [2**64 - 1]).item() == 2.0**64
