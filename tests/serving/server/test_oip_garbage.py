"""Anything at all into the codecs and the socket: tensors survive, errors are the client's, the server goes on."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.server.errors import InvalidRequestError, TooLargeError
from serving.server.http import Request
from serving.server.protocols import oip_codec
from serving.server.protocols.json_numbers import numbers
from serving.server.protocols.oip_body import HEADER_LENGTH, parse
from serving.server.signature import Signature, TensorSpec

from .artifacts import images
from .processes import ServerProcess

pytestmark = pytest.mark.slow

REFUSED = (InvalidRequestError, TooLargeError)
INFER = "/v2/models/fashion/infer"
KINDS = [dtype for dtype in oip_codec.DATATYPES if dtype not in ("bytes", "bfloat16")]
SIGNATURE = Signature(
    (TensorSpec("image", "float32", (-1, 28, 28, 1)), TensorSpec("n", "int64", (-1,))),
    (TensorSpec("y", "float32", (-1, 10)),),
)

tensors = st.sampled_from(KINDS).flatmap(
    lambda kind: npst.arrays(
        kind,
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if "float" in kind else None,
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
datatypes = st.sampled_from([*oip_codec.DTYPES, "FP8", ""])
sizes = st.lists(st.integers(0, 4) | st.integers(0, 2**64), max_size=5)
described = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["image", "n", "y"]) | json_values,
        "datatype": datatypes | json_values,
        "shape": sizes | json_values,
        "data": json_values,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 40) | json_values}
        )
        | json_values,
    },
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "inputs": st.lists(described, max_size=3) | json_values,
        "outputs": st.lists(described, max_size=3) | json_values,
        "parameters": st.fixed_dictionaries(
            {}, optional={"timeout": json_values, "binary_data_output": json_values}
        )
        | json_values,
    },
)


@given(tensors)
def test_tensors_survive_the_raw_form(array: Any) -> None:
    datatype = oip_codec.DATATYPES[array.dtype.name]
    back = oip_codec.from_raw("x", datatype, array.shape, oip_codec.to_raw(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(tensors)
def test_tensors_survive_json_flat_and_nested(array: Any) -> None:
    datatype = oip_codec.DATATYPES[array.dtype.name]
    flat = orjson.loads(oip_codec.to_json("x", array))
    wide = array.astype(np.float64) if array.dtype.kind == "f" else array
    for data in (flat, json.loads(json.dumps(wide.tolist()))):
        if array.size == 0 and data != []:
            continue  # [[], []] says less than the shape: its inner sizes may be lost
        back = oip_codec.from_json("x", datatype, array.shape, data, base64=False)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_strings_survive_the_raw_form(values: list[bytes]) -> None:
    array = oip_codec.strings("x", (len(values),), values)
    assert oip_codec.from_raw("x", "BYTES", (len(values),), oip_codec.to_raw(array)).tolist() == values


@given(datatypes, json_values, st.binary(max_size=40))
def test_garbage_is_refused_by_the_raw_form(datatype: str, shape: object, raw: bytes) -> None:
    with contextlib.suppress(*REFUSED):
        oip_codec.from_raw("x", datatype, oip_codec.shape("x", shape), raw)


@given(datatypes, sizes, json_values, st.booleans())
def test_garbage_is_refused_by_json(datatype: str, shape: list[int], data: object, base64: bool) -> None:
    with contextlib.suppress(*REFUSED):
        array = oip_codec.from_json("x", datatype, oip_codec.shape("x", shape), data, base64)
        assert array.shape == tuple(shape)


@given(st.sampled_from([*KINDS, "bfloat16"]), json_values)
def test_numbers_take_nothing_but_numbers(kind: str, data: object) -> None:
    with contextlib.suppress(*REFUSED):
        assert numbers("x", kind, data).dtype == np.dtype(kind)


def _framed(document: object, tail: bytes, length: str | None) -> tuple[bytes, dict[str, str]]:
    header = json.dumps(document).encode()
    return header + tail, {HEADER_LENGTH: length if length is not None else str(len(header))}


framed = st.builds(
    _framed,
    documents | json_values,
    st.binary(max_size=40),
    st.none() | st.sampled_from(["0", "-1", "7", "9" * 5000, "", "1e3", "\xb2"]),
)


@settings(max_examples=150)
@given(framed)
def test_garbage_bodies_leave_the_parser_as_refusals(given: tuple[bytes, dict[str, str]]) -> None:
    body, headers = given
    with contextlib.suppress(*REFUSED):
        parse(Request("POST", INFER, {}, headers, body), SIGNATURE)


@pytest.mark.parametrize("media", ["application/json", "application/octet-stream", "image/png"])
def test_the_server_answers_the_next_request_after_garbage(oip: ServerProcess, media: str) -> None:
    one = images(1)
    fine = {"name": "image", "datatype": "FP32", "shape": list(one.shape), "data": one.tolist()}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(framed | st.tuples(st.binary(max_size=200), st.just({})))
    def garbage(given: tuple[bytes, dict[str, str]]) -> None:
        body, headers = given
        names = {name.replace("-", "_"): value for name, value in headers.items()}
        answer = oip.call("POST", INFER, body, Content_Type=media, **names)
        assert 400 <= answer.status < 500, answer.body
        assert answer.error

    garbage()
    assert oip.call("POST", INFER, {"inputs": [fine]}).status == 200
