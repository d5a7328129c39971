"""TensorFlow Serving's REST, as its clients see it."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from .artifacts import encode, images, logits
from .processes import ServerProcess, assert_matches

PREDICT = "/v1/models/fashion:predict"
BATCH = images(2)
ROWS = BATCH.tolist()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_row_form_gives_an_object_a_row_with_both_outputs(tfs: ServerProcess) -> None:
    for body in ({"instances": ROWS}, {"instances": [{"image": row} for row in ROWS]}):
        answer = tfs.call("POST", PREDICT, body)
        assert answer.status == 200, answer.body
        predictions = answer.json()["predictions"]
        assert [set(row) for row in predictions] == [{"logits", "probabilities"}] * 2
        np.testing.assert_allclose([row["logits"] for row in predictions], logits(BATCH), atol=1e-5)


def test_column_form_gives_columns(tfs: ServerProcess) -> None:
    for inputs in (ROWS, {"image": ROWS}):
        outputs = tfs.call("POST", PREDICT, {"inputs": inputs}).json()["outputs"]
        np.testing.assert_allclose(outputs["logits"], logits(BATCH), atol=1e-5)


def test_a_single_output_comes_as_bare_values(tfs: ServerProcess) -> None:
    half = "/v1/models/half_plus_two:predict"
    assert tfs.call("POST", half, {"instances": [1.0, 2.0, 5.0]}).json() == {"predictions": [2.5, 3.0, 4.5]}
    assert tfs.call("POST", half, {"inputs": [1, 2]}).json() == {"outputs": [2.5, 3.0]}
    assert tfs.call("POST", half, {"instances": [{"x": 4}]}).json() == {"predictions": [4.0]}


def test_the_signature_encoded_decodes_pictures_in_the_graph(tfs: ServerProcess) -> None:
    encoded = [b64(encode(picture)) for picture in BATCH]
    for instances in (encoded, [{"image_bytes": value} for value in encoded]):
        answer = tfs.call("POST", PREDICT, {"signature_name": "encoded", "instances": instances})
        rows = [row["logits"] for row in answer.json()["predictions"]]
        np.testing.assert_allclose(rows, logits(BATCH), atol=1e-5)


def test_status_and_metadata_have_the_original_s_form(tfs: ServerProcess) -> None:
    for path in ("/v1/models/half_plus_two", "/v1/models/half_plus_two/versions/1"):
        ok = {"error_code": "OK", "error_message": ""}
        status = {"version": "1", "state": "AVAILABLE", "status": ok}
        assert tfs.call("GET", path).json() == {"model_version_status": [status]}
    metadata = tfs.call("GET", "/v1/models/fashion/metadata").json()
    assert metadata["model_spec"]["name"] == "fashion"
    image = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]
    assert image["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "28", "28", "1"]


def _with_nan() -> bytes:
    return json.dumps({"instances": [float("nan")]}).encode()


BAD: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "shape": ({"instances": [[[0.0]]]}, r"expected shape \[-1, 28, 28, 1\].*got \[1, 1, 1\]"),
    "dtype": ({"instances": ["text"]}, "expected numbers of dtype float32, got strings"),
    "base64 for numbers": ({"instances": [b64(b"x")]}, "float32, got base64"),
    "NaN": (_with_nan(), "NaN"),
    "empty": ({"instances": []}, "at least one"),
    "empty column": ({"inputs": {"image": []}}, r"got \[0\]"),
    "not a list": ({"instances": 1}, 'expected "instances" to be a list'),
    "both forms": ({"instances": ROWS, "inputs": ROWS}, 'one of "instances"'),
    "neither": ({}, 'one of "instances"'),
    "broken": (b"{", "expected JSON"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "1024 levels"),
    "ragged": ({"instances": [[1.0, 2.0], [3.0]]}, "ragged"),
    "other input": ({"instances": [{"picture": ROWS[0]}]}, "expected inputs image, got picture"),
    "extra input": ({"inputs": {"image": ROWS, "mask": 1}}, "expected inputs image, got image, mask"),
    "rows differ": ({"instances": [{"image": ROWS[0]}, {"other": 1}]}, "instance 1: expected an object"),
    "mixed": ({"instances": [1.0, {"image": 1}]}, "got objects among bare values"),
    "signature": (
        {"signature_name": "x", "instances": ROWS},
        "no signature 'x'; it has: encoded, serving_default",
    ),
    "no picture": (
        {"signature_name": "encoded", "instances": [b64(b"hello")]},
        "the model refused .*(?i:image|format)",
    ),
    "no base64": ({"signature_name": "encoded", "instances": [{"b64": "?"}]}, "base64"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_body_is_refused_with_what_was_expected(tfs: ServerProcess, case: str) -> None:
    body, message = BAD[case]
    answer = tfs.call("POST", PREDICT, body)
    assert answer.status == 400, answer.body
    assert_matches(message, answer.error)
    assert tfs.call("POST", PREDICT, {"instances": ROWS}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/nope:predict", 404),
        ("POST", "/v1/models/fashion/versions/99:predict", 404),
        ("GET", "/v1/models/nope", 404),
        ("GET", "/v1/models/fashion/versions/99", 404),
        ("GET", "/nothing", 404),
        ("GET", PREDICT, 405),
        ("POST", "/v1/models/fashion:explain", 404),
    ],
)
def test_what_does_not_exist_is_a_json_error(tfs: ServerProcess, method: str, path: str, status: int) -> None:
    answer = tfs.call(method, path, {"instances": ROWS} if method == "POST" else None)
    assert (answer.status, bool(answer.error)) == (status, True)


def test_a_body_of_100_mb_is_refused(tfs: ServerProcess) -> None:
    answer = tfs.call("POST", PREDICT, b" " * 100_000_000)
    assert (answer.status, "at most 1048576 bytes" in answer.error) == (413, True)


def test_the_metrics_lie_at_the_configured_path(tfs: ServerProcess) -> None:
    tfs.call("POST", PREDICT, {"instances": ROWS})
    page = tfs.call("GET", "/monitoring/prometheus/metrics").body.decode()
    assert 'tandem_requests_total{code="OK",model="fashion",protocol="tfs-rest"' in page


def test_the_log_says_what_server_this_is_and_which_flags_do_nothing(tfs: ServerProcess) -> None:
    assert "not the original tensorflow_model_server" in tfs.log
    assert tfs.log.count("--enable_batching is accepted, but does nothing") == 1
