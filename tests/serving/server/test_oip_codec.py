"""Tensors of the Open Inference Protocol, both ways."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from serving.server.errors import InvalidRequestError, ServerError
from serving.server.protocols.oip_codec import DTYPES, from_json, from_raw, to_json, to_raw
from serving.server.signature import Array


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_every_datatype_survives_both_forms(datatype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], DTYPES[datatype])
    raw = from_raw("x", datatype, (2, 3), to_raw(array))
    parsed = from_json("x", datatype, (2, 3), orjson.loads(to_json("x", array)), base64=False)
    for given in (raw, parsed):
        assert given.dtype == array.dtype
        np.testing.assert_array_equal(given, array)


def test_strings_survive_both_forms() -> None:
    array = np.array([b"", "größe".encode()], object)
    assert from_raw("x", "BYTES", (2,), to_raw(array)).tolist() == array.tolist()
    assert (
        from_json("x", "BYTES", (2,), orjson.loads(to_json("x", array)), base64=False).tolist()
        == array.tolist()
    )


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("INT8", [1, 300], "expected int8, -128 to 127, got 1 to 300$"),
        (
            "INT64",
            [2**63],
            "expected int64, -9223372036854775808 to 9223372036854775807, got 9223372036854775808 ",
        ),
        ("FP32", [1, "x" * 100_000], "got integers, strings"),
        ("INT32", [1.5, 2], "expected integers of dtype int32, got fractions"),
        ("INT32", [1.5, 1e30], "expected integers of dtype int32, got fractions"),
        (
            "UINT64",
            [1, 2.0**64],
            r"expected uint64, 0 to 18446744073709551615, got 1 to 1.8446744073709552e\+19",
        ),
        ("UINT8", [-1, 2], "expected uint8, 0 to 255"),
        ("BOOL", [1, 0], "expected booleans of dtype bool, got integers"),
        ("FP32", [1, "2"], "expected numbers of dtype float32, got integers, strings"),
        ("FP32", [1, {}], "got integers, objects"),
        ("FP32", [1.5, True], "expected numbers of dtype float32, got booleans, fractions"),
        ("INT64", [1, True], "expected integers of dtype int64, got booleans, integers"),
        ("FP32", [1, [2]], "equal lengths"),
        ("FP32", [1], r"expected data of shape \[2\], got \[1\]"),
        ("BYTES", ["a", 1], "expected strings for BYTES, got integers, strings"),
        ("BYTES", ["a"], r"expected data of shape \[2\], got \[1\]"),
        ("BYTES", [["a"], ["b"]], r"expected data of shape \[2\], got \[2, 1\]"),
        ("BYTES", ["a", ["b"]], "expected strings for BYTES, in lists of equal lengths"),
    ],
)
def test_nothing_is_converted_in_silence(datatype: str, data: list[object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        from_json("x", datatype, (2,), data, base64=False)


def test_bytes_that_are_no_booleans_are_refused() -> None:
    """Runtimes take a bool of 2 for what they like."""
    with pytest.raises(InvalidRequestError, match="expected bytes of 0 or 1 for BOOL"):
        from_raw("x", "BOOL", (3,), b"\0\1\2")
    assert from_raw("x", "BOOL", (0,), b"").size == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1, np.nan]), "holds NaN or infinity"),
        (np.array([b"\xff"], object), "bytes that are no text"),
    ],
)
def test_what_json_cannot_carry_is_said_and_not_turned_into_null(array: Array, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        to_json("y", array)
