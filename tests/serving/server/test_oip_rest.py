"""The Open Inference Protocol over REST, as its clients see it."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from .artifacts import encode, images, logits
from .processes import Answer, ServerProcess, assert_refused

INFER = "/v2/models/fashion/infer"
LENGTH = "Inference-Header-Content-Length"
ONE = images(1)


def tensor(array: np.ndarray[Any, Any], **changes: object) -> dict[str, object]:
    given = {"name": "image", "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
    return {key: value for key, value in (given | changes).items() if value is not ...}


def binary(tail: bytes, size: object = None, **changes: object) -> tuple[bytes, str]:
    """A body with one input that is binary, and the length of its JSON."""
    parameters = {"binary_data_size": len(tail) if size is None else size}
    given = tensor(ONE, data=..., parameters=parameters, **changes)
    header = json.dumps({"inputs": [given]}).encode()
    return header + tail, str(len(header))


def split(answer: Answer) -> tuple[Any, bytes]:
    """A binary answer's JSON and the data behind it."""
    assert answer.status == 200, answer.body
    length = int(answer.headers[LENGTH])
    return json.loads(answer.body[:length]), answer.body[length:]


def output(answer: Answer, name: str = "logits") -> np.ndarray[Any, Any]:
    assert answer.status == 200, answer.body
    found = next(o for o in answer.json()["outputs"] if o["name"] == name)
    return np.array(found["data"], np.float32).reshape(found["shape"])


@pytest.mark.parametrize("path", [INFER, "/v2/models/fashion/versions/1/infer"])
def test_nested_and_flat_json_give_the_model_s_answer(oip: ServerProcess, path: str) -> None:
    batch = images(3)
    for data in (batch.tolist(), batch.ravel().tolist()):
        answer = oip.call("POST", path, {"id": "a7", "inputs": [tensor(batch, data=data)]})
        np.testing.assert_allclose(output(answer), logits(batch), atol=1e-5)
        np.testing.assert_allclose(output(answer, "probabilities").sum(1), 1, atol=1e-5)
        assert (answer.json()["id"], answer.json()["model_version"]) == ("a7", "1")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_encoded_pictures_are_decoded_in_all_three_ways(oip: ServerProcess, form: str) -> None:
    picture = ONE[0] * 0 + np.float32(0.6)  # of one gray, which JPEG keeps
    encoded = encode(picture, form)
    as_json = tensor(np.zeros(1), datatype="BYTES", data=[base64.b64encode(encoded).decode()])
    raw, length = binary(struct.pack("<I", len(encoded)) + encoded, datatype="BYTES", shape=[1, 1])
    for answer in (
        oip.call("POST", INFER, {"inputs": [as_json]}),
        oip.call("POST", INFER, encoded, Content_Type=f"image/{form.lower()}"),
        oip.call("POST", INFER, raw, Inference_Header_Content_Length=length),
    ):
        np.testing.assert_allclose(output(answer), logits(picture), atol=1e-5)


@pytest.mark.parametrize(("given", "echoed"), [("", ""), ("größe\0", "größe\0"), (7, "7"), (None, None)])
def test_the_id_comes_back_as_it_was_sent(oip: ServerProcess, given: object, echoed: str | None) -> None:
    assert oip.call("POST", INFER, {"id": given, "inputs": [tensor(ONE)]}).json().get("id") == echoed


def test_outputs_come_back_as_asked_one_by_one(oip: ServerProcess) -> None:
    wanted = [{"name": "probabilities", "parameters": {"binary_data": False}}, {"name": "logits"}]
    body = {"inputs": [tensor(ONE)], "outputs": wanted, "parameters": {"binary_data_output": True}}
    document, tail = split(oip.call("POST", INFER, body))
    first, second = document["outputs"]
    assert (first["name"], len(first["data"])) == ("probabilities", 10)
    assert (second["name"], second["parameters"], len(tail)) == ("logits", {"binary_data_size": 40}, 40)
    only = oip.call("POST", INFER, {"inputs": [tensor(ONE)], "outputs": wanted[1:]})
    assert [o["name"] for o in only.json()["outputs"]] == ["logits"]


def test_null_stands_for_what_a_request_leaves_out(oip: ServerProcess) -> None:
    assert oip.call("POST", "/v2/repository/index", {"ready": None}).json()[0]["name"] == "fashion"
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor(ONE, parameters=None)]}
    assert oip.call("POST", INFER, body).status == 200


def test_nan_is_the_model_s_business_and_needs_binary_data_to_come_back(oip: ServerProcess) -> None:
    nan = (ONE * np.nan).tobytes()
    refused = oip.infer_binary("fashion", "image", "FP32", ONE.shape, nan)
    assert_refused(refused, 400, "output 'logits' holds NaN or infinity.*ask for binary_data")
    wanted = {"binary_data_output": True}
    answer = oip.infer_binary("fashion", "image", "FP32", ONE.shape, nan, parameters=wanted)
    assert np.isnan(np.frombuffer(split(answer)[1], "<f4")).all()
    empty = oip.call("POST", INFER, {"inputs": [tensor(ONE[:0])]}).json()
    assert [o["shape"] for o in empty["outputs"]] == [[0, 10], [0, 10]]


BAD_BODIES: dict[str, tuple[bytes | dict[str, object], str]] = {
    "shape": (
        {"inputs": [tensor(np.zeros((1, 27, 28, 1)))]},
        r"expected shape \[-1, 28, 28, 1\].*got \[1, 27, 28, 1\]",
    ),
    "NaN": (b'{"inputs": [{"name": "image", "data": [NaN]}]}', "JSON has no NaN"),
    "broken JSON": (b'{"inputs": [', "expected JSON"),
    "not an object": (b"[1, 2]", "expected a JSON object"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "expected JSON, .*depth limit"),
    "missing input": ({"inputs": []}, "expected input image, got none"),
    "no inputs": ({}, 'expected "inputs"'),
    "input without a name": ({"inputs": [{}]}, "expected each input to be an object with a name"),
    "unknown output": ({"inputs": [tensor(ONE)], "outputs": [{"name": "labels"}]}, "unknown output 'labels'"),
    "three outputs of two": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "logits"}] * 3},
        "outputs logits, probabilities once at most, got 3 outputs",
    ),
    "an output twice": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "logits"}] * 2},
        r"each output once at most, got 2 of \['logits'\]",
    ),
    "timeout of another kind": ({"parameters": {"timeout": "1"}, "inputs": [tensor(ONE)]}, "microseconds"),
    "no data": ({"inputs": [tensor(ONE, data=...)]}, 'expected "data" or .* got neither'),
    "data twice": ({"inputs": [tensor(ONE, parameters={"binary_data_size": 3136})]}, "got both"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_is_refused_with_what_was_expected(oip: ServerProcess, case: str) -> None:
    body, message = BAD_BODIES[case]
    answer = oip.call("POST", INFER, body)
    assert_refused(answer, 400, message)


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"", "99999999", "of at most the body's 0 bytes"),
        (b"", "9" * 5000, "of at most the body's 0 bytes"),
        (*binary(b"x" * 3000, 3136), "at most the 3000 that are left, got 3136"),
        (*binary(b"x" * 3000, True), "expected binary_data_size to be a number of bytes"),
        (*binary(b"x" * 4000, 3136), "expected 3136 bytes of binary data for the inputs, got 4000"),
        (*binary(b"x" * 3000), "expected 3136 bytes for FP32 .* got 3000"),
        (
            *binary(struct.pack("<I", 1000) + b"short", datatype="BYTES", shape=[1]),
            "element 0 of 1 takes 1004 bytes with its length, but 9 are left",
        ),
    ],
)
def test_binary_sizes_that_do_not_match_are_refused(
    oip: ServerProcess, body: bytes, length: str, message: str
) -> None:
    answer = oip.call("POST", INFER, body, Inference_Header_Content_Length=length)
    assert_refused(answer, 400, message)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v2/models/nope/infer", 404, "'nope' is not served; served: fashion"),
        ("POST", "/v2/models/fashion/versions/9/infer", 404, "version 9 .* served: 1"),
        ("GET", "/v3/anything", 404, "nothing is served at '/v3/anything'"),
        ("GET", INFER, 405, "expected POST .* got GET"),
        ("POST", "/v2/repository/models/fashion/unload", 403, "need the server's flag --repository-control"),
    ],
)
def test_what_does_not_exist_or_is_not_allowed_is_named(
    oip: ServerProcess, method: str, path: str, status: int, message: str
) -> None:
    answer = oip.call(method, path, {"inputs": [tensor(ONE)]} if method == "POST" else None)
    assert_refused(answer, status, message)
    assert status != 405 or answer.headers["Allow"] in ("POST", "GET, HEAD")
