"""The Open Inference Protocol over REST, as its clients see it."""

from __future__ import annotations

import base64
import json
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from .artifacts import encode, images, logits, write_onnx
from .processes import Answer, ServerProcess, assert_matches, tandem_server

INFER = "/v2/models/fashion/infer"


def tensor(array: np.ndarray[Any, Any], **changes: object) -> dict[str, object]:
    return {
        "name": "image",
        "datatype": "FP32",
        "shape": list(array.shape),
        "data": array.tolist(),
    } | changes


def output(answer: Answer, name: str = "logits") -> np.ndarray[Any, Any]:
    assert answer.status == 200, answer.body
    found = next(o for o in answer.json()["outputs"] if o["name"] == name)
    return np.array(found["data"], np.float32).reshape(found["shape"])


def test_metadata_names_the_version_that_answers_and_the_shapes(oip: ServerProcess) -> None:
    assert oip.call("GET", "/v2").json()["name"] == "tandem"
    assert oip.call("GET", "/v2/health/live").status == 200
    assert oip.call("GET", "/v2/models/fashion/ready").status == 200
    metadata = oip.call("GET", "/v2/models/fashion").json()
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28, 1]}]
    assert [o["name"] for o in metadata["outputs"]] == ["logits", "probabilities"]


@pytest.mark.parametrize("path", [INFER, "/v2/models/fashion/versions/1/infer"])
def test_nested_and_flat_json_give_the_model_s_answer(oip: ServerProcess, path: str) -> None:
    batch = images(3)
    for data in (batch.tolist(), batch.ravel().tolist()):
        answer = oip.call("POST", path, {"id": "a7", "inputs": [tensor(batch, data=data)]})
        np.testing.assert_allclose(output(answer), logits(batch), atol=1e-5)
        np.testing.assert_allclose(output(answer, "probabilities").sum(1), 1, atol=1e-5)
        assert (answer.json()["id"], answer.json()["model_version"]) == ("a7", "1")


def test_only_the_requested_outputs_come_back(oip: ServerProcess) -> None:
    body = {"inputs": [tensor(images(1))], "outputs": [{"name": "probabilities"}]}
    assert [o["name"] for o in oip.call("POST", INFER, body).json()["outputs"]] == ["probabilities"]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_works_in_json_and_in_binary(oip: ServerProcess, binary: bool) -> None:
    batch = images(2)
    client = triton.InferenceServerClient(oip.http)
    given = triton.InferInput("image", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch, binary_data=binary)
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
    answer = client.infer("fashion", [given], outputs=wanted, request_id="x")
    np.testing.assert_allclose(answer.as_numpy("logits"), logits(batch), atol=1e-5)
    assert answer.get_response()["model_version"] == "1"
    client.close()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_encoded_pictures_are_decoded_in_all_three_ways(oip: ServerProcess, form: str) -> None:
    picture = images(1)[0] * 0 + np.float32(0.6)  # of one gray, which JPEG keeps
    expected, encoded = logits(picture), encode(picture, form)
    as_json = tensor(np.zeros(1), datatype="BYTES", data=[base64.b64encode(encoded).decode()])
    np.testing.assert_allclose(output(oip.call("POST", INFER, {"inputs": [as_json]})), expected, atol=1e-5)
    raw = oip.call("POST", INFER, encoded, Content_Type=f"image/{form.lower()}")
    np.testing.assert_allclose(output(raw), expected, atol=1e-5)
    client = triton.InferenceServerClient(oip.http)
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([encoded], object))
    np.testing.assert_allclose(client.infer("fashion", [given]).as_numpy("logits"), expected, atol=1e-5)
    client.close()


@pytest.mark.parametrize(("given", "echoed"), [("", ""), ("x", "x"), (7, "7"), (None, None)])
def test_the_id_comes_back_as_it_was_sent(oip: ServerProcess, given: object, echoed: str | None) -> None:
    answer = oip.call("POST", INFER, {"id": given, "inputs": [tensor(images(1))]}).json()
    assert answer.get("id") == echoed


def test_a_bare_tensor_needs_no_header(oip: ServerProcess) -> None:
    batch = images(2)
    answer = oip.call("POST", INFER, batch.tobytes(), Inference_Header_Content_Length="0")
    assert answer.status == 200, answer.body
    length = int(answer.headers["Inference-Header-Content-Length"])
    found = json.loads(answer.body[:length])["outputs"][0]
    assert found["shape"] == [2, 10]
    np.testing.assert_allclose(
        np.frombuffer(answer.body[length:][:80], "<f4").reshape(2, 10), logits(batch), atol=1e-5
    )
    refused = oip.call("POST", INFER, b"12345", Inference_Header_Content_Length="0")
    assert (refused.status, "got 5" in refused.error) == (400, True)


def test_outputs_may_be_binary_one_by_one(oip: ServerProcess) -> None:
    wanted = [
        {"name": "probabilities", "parameters": {"binary_data": False}},
        {"name": "logits"},
    ]
    body = {
        "inputs": [tensor(images(1))],
        "outputs": wanted,
        "parameters": {"binary_data_output": True},
    }
    answer = oip.call("POST", INFER, body)
    length = int(answer.headers["Inference-Header-Content-Length"])
    first, second = json.loads(answer.body[:length])["outputs"]
    assert (first["name"], len(first["data"])) == ("probabilities", 10)
    assert (second["name"], second["parameters"]) == ("logits", {"binary_data_size": 40})
    assert len(answer.body) == length + 40


def _with_nan() -> bytes:
    body = json.dumps({"inputs": [tensor(images(1))]})
    return body.replace('"data": [[[[', '"data": [[[[NaN, ', 1).encode()


ONE = images(1)
BAD_BODIES: dict[str, tuple[bytes | dict[str, object], str]] = {
    "shape": (
        {"inputs": [tensor(np.zeros((1, 27, 28, 1)))]},
        r"expected shape \[-1, 28, 28, 1\].*got \[1, 27, 28, 1\]",
    ),
    "shape and data differ": ({"inputs": [tensor(ONE, shape=[2, 28, 28, 1])]}, r"shape \[2, 28.*got \[1, 28"),
    "dtype": (
        {"inputs": [tensor(ONE.astype(int), datatype="INT64")]},
        "expected dtype float32, got int64",
    ),
    "datatype": ({"inputs": [tensor(ONE, datatype="FLOAT")]}, "unknown datatype 'FLOAT'; expected one of"),
    "strings": (
        {"inputs": [tensor(ONE, data=["1.5"] * 784)]},
        "expected numbers of dtype float32, got strings",
    ),
    "null": ({"inputs": [tensor(ONE, data=[None] * 784)]}, "expected numbers .* got null"),
    "NaN": (_with_nan(), "NaN"),
    "too large for float32": ({"inputs": [tensor(ONE, data=[1e39] * 784)]}, "finite numbers"),
    "empty batch": (
        {"inputs": [tensor(np.zeros((0, 28, 28, 1)))]},
        r"at least one row, got|expected data of shape",
    ),
    "broken JSON": (b'{"inputs": [', "expected JSON"),
    "empty body": (b"", "expected JSON"),
    "not an object": (b"[1, 2]", "expected a JSON object"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "1024 levels"),
    "nested data": (
        b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": '
        + b"[" * 900
        + b"1"
        + b"]" * 900
        + b"}]}",
        "ragged|shape",
    ),
    "ragged": ({"inputs": [tensor(ONE, data=[[1.0, 2.0], [3.0]])]}, "equal lengths.* got ragged"),
    "missing input": ({"inputs": []}, "expected input image, got none"),
    "no inputs": ({}, 'expected "inputs"'),
    "extra input": (
        {"inputs": [tensor(ONE), tensor(ONE, name="mask")]},
        "expected input image, got image, mask",
    ),
    "twice": ({"inputs": [tensor(ONE), tensor(ONE)]}, "given twice"),
    "unknown output": ({"inputs": [tensor(ONE)], "outputs": [{"name": "labels"}]}, "unknown output 'labels'"),
    "negative shape": ({"inputs": [tensor(ONE, shape=[-1, 28, 28, 1])]}, "non-negative"),
    "shape past 2^63": ({"inputs": [tensor(ONE, shape=[2**62, 28, 28, 1])]}, "at most .* elements"),
    "empty past 2^63": (
        {"inputs": [tensor(ONE, shape=[0, 2**62, 2**62, 1], data=[])]},
        "at most .* elements",
    ),
    "a number of a million digits": (
        b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [' + b"9" * 1_000_000 + b"]}]}",
        "expected JSON",
    ),
    "output twice": ({"inputs": [tensor(ONE)], "outputs": [{"name": "logits"}] * 2}, "asked for twice"),
    "id of another kind": ({"id": [1], "inputs": [tensor(ONE)]}, 'expected "id" to be a string, got list'),
    "timeout of another kind": ({"parameters": {"timeout": "1"}, "inputs": [tensor(ONE)]}, "microseconds"),
    "class count": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "logits", "parameters": {"classification": 3}}]},
        "does not offer the classification extension",
    ),
    "shared memory": (
        {"inputs": [tensor(ONE, parameters={"shared_memory_region": "r"})]},
        "does not offer shared memory",
    ),
    "no picture": (
        {"inputs": [tensor(np.zeros(1), datatype="BYTES", data=["aGVsbG8="])]},
        "picture 0 of input 'image' is no picture: expected PNG or JPEG",
    ),
    "no base64": ({"inputs": [tensor(np.zeros(1), datatype="BYTES", data=["?"])]}, "base64"),
    "binary size": (
        {"inputs": [tensor(ONE, data=None, parameters={"binary_data_size": 3136})]},
        "0 bytes of binary data",
    ),
    "data twice": (
        {"inputs": [tensor(ONE, parameters={"binary_data_size": 3136})]},
        "or binary_data_size, got both",
    ),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_is_refused_with_what_was_expected(oip: ServerProcess, case: str) -> None:
    body, message = BAD_BODIES[case]
    answer = oip.call("POST", INFER, body)
    assert answer.status == 400
    assert_matches(message, answer.error)
    assert oip.call("POST", INFER, {"inputs": [tensor(ONE)]}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v2/models/nope/infer", 404, "'nope' is not served; served: fashion"),
        ("POST", "/v2/models/fashion/versions/9/infer", 404, "version 9 .* served: 1"),
        ("GET", "/v2/models/nope", 404, "'nope' is not served"),
        ("GET", "/v3/anything", 404, "nothing is served at /v3/anything"),
        ("GET", INFER, 405, "expected POST .* got GET"),
        ("DELETE", "/v2/models/fashion", 405, "expected GET"),
    ],
)
def test_what_does_not_exist_is_named(
    oip: ServerProcess, method: str, path: str, status: int, message: str
) -> None:
    answer = oip.call(method, path, {"inputs": [tensor(ONE)]} if method == "POST" else None)
    assert answer.status == status
    assert_matches(message, answer.error)


def test_too_many_rows_and_too_large_bodies_are_413(oip: ServerProcess) -> None:
    batch = np.zeros((65, 28, 28, 1), np.float32)
    header = json.dumps(
        {
            "inputs": [
                {
                    k: v
                    for k, v in tensor(batch, parameters={"binary_data_size": batch.nbytes}).items()
                    if k != "data"
                }
            ]
        }
    ).encode()
    rows = oip.call("POST", INFER, header + batch.tobytes(), Inference_Header_Content_Length=str(len(header)))
    assert (rows.status, "at most 64" in rows.error) == (413, True)
    large = oip.call("POST", INFER, b" " * 100_000_000)
    assert large.status == 413
    assert_matches("at most 1048576 bytes, got one of 100000000", large.error)
    assert oip.call("POST", INFER, {"inputs": [tensor(ONE)]}).status == 200


def test_an_endless_chunked_body_is_cut_off_at_the_limit(oip: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", oip.http_port), timeout=20) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        sent = 0
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            while sent < 100_000_000:
                connection.sendall(chunk)
                sent += 65536
        except OSError:
            pass  # the server hung up, as it should
    assert sent < 100_000_000
    assert oip.call("POST", INFER, {"inputs": [tensor(ONE)]}).status == 200


@pytest.mark.parametrize(
    ("length", "tail", "message"),
    [
        ("99999999", b"", "expected at most the body's"),
        ("-5", b"", "expected at most the body's"),
        ("\xb2", b"", "expected at most the body's"),
        ("9" * 5000, b"", "expected at most the body's"),
        ("", b"x" * 3000, "3000 bytes of binary data are left"),
        ("", b"x" * 4000, "account for 3136 bytes of binary data, but 4000 came"),
    ],
)
def test_binary_sizes_that_do_not_match_are_refused(
    oip: ServerProcess, length: str, tail: bytes, message: str
) -> None:
    described = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1]}
    header = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": 3136}}]}).encode()
    answer = oip.call(
        "POST", INFER, header + tail, Inference_Header_Content_Length=length or str(len(header))
    )
    assert answer.status == 400
    assert_matches(message, answer.error)


def test_binary_strings_with_false_lengths_are_refused(oip: ServerProcess) -> None:
    tail = struct.pack("<I", 1000) + b"short"
    described = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(tail)},
    }
    header = json.dumps({"inputs": [described]}).encode()
    answer = oip.call("POST", INFER, header + tail, Inference_Header_Content_Length=str(len(header)))
    assert answer.status == 400
    assert_matches("says 1000 bytes, but the tensor has 5 left", answer.error)


def test_a_body_that_says_it_is_a_picture_and_is_none_is_refused(oip: ServerProcess) -> None:
    answer = oip.call("POST", INFER, b"no picture", Content_Type="image/png")
    assert (answer.status, "is no picture: expected PNG or JPEG bytes, got 10 bytes" in answer.error) == (
        400,
        True,
    )


def test_a_body_that_does_not_come_in_time_is_given_up(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    flags = ("--request-timeout-seconds=0.3",)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log", *flags)
    try:
        server.wait_for("/v2/health/ready")
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
    finally:
        server.stop()


def test_a_compressed_body_is_refused_by_its_name(oip: ServerProcess) -> None:
    answer = oip.call("POST", INFER, b"\x1f\x8b", Content_Encoding="br")
    assert (answer.status, "'br'" in answer.error) == (415, True)
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


def test_null_stands_for_what_a_request_leaves_out(oip: ServerProcess) -> None:
    assert oip.call("POST", "/v2/repository/index", {"ready": None}).json()[0]["name"] == "fashion"
    assert oip.call("POST", "/v2/repository/models/fashion/load", {"parameters": None}).status == 200
    refused = oip.call("POST", "/v2/repository/models/fashion/load", {"parameters": []})
    assert (refused.status, refused.error) == (400, "expected parameters to be an object, got list")
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor(ONE, parameters=None)]}
    assert oip.call("POST", INFER, body).status == 200


def test_a_method_that_is_not_allowed_is_told_which_are(oip: ServerProcess) -> None:
    assert oip.call("GET", INFER).headers["Allow"] == "POST"
    assert oip.call("POST", "/v2/health/live").headers["Allow"] == "GET, HEAD"


def test_prometheus_counts_by_model_version_protocol_and_code(oip: ServerProcess) -> None:
    oip.call("POST", INFER, {"inputs": [tensor(ONE)]})
    oip.call("POST", INFER, b"{")
    oip.call("POST", "/v2/models/nope/infer", b"{}")
    page = oip.call("GET", "/metrics").body.decode()
    labels = 'model="fashion",protocol="oip-rest",version="1"'
    assert f'tandem_requests_total{{code="OK",{labels}}}' in page
    assert f'tandem_requests_total{{code="INVALID_ARGUMENT",{labels}}}' in page
    assert 'tandem_model_version{model="fashion",version="1"} 1.0' in page
    assert "nope" not in page  # clients must not be able to fill the registry
    assert "tandem_batch_rows_bucket" in page
