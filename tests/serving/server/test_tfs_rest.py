"""TensorFlow Serving's REST, as its clients see it."""

from __future__ import annotations

import base64
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


BAD: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "shape": ({"instances": [[[0.0]]]}, r"expected shape \[-1, 28, 28, 1\].*got \[1, 1, 1\]"),
    "dtype": (
        {"instances": ["text"]},
        'element: 0 .*JSON Value: "text" Type: String is not of expected type: float',
    ),
    "base64 for numbers": ({"instances": [b64(b"x")]}, "not of expected type: float"),
    "empty": ({"instances": []}, "No values in 'instances' array"),
    "empty column": ({"inputs": {"image": []}}, r"got \[0\]"),
    "not a list": ({"instances": 1}, "Expecting 'instances' to be an list"),
    "both forms": ({"instances": ROWS, "inputs": ROWS}, "expecting only one of 'inputs' or 'instances' keys"),
    "neither": ({}, "Missing 'inputs' or 'instances' key"),
    "not an object": (b"[1]", "Is not object"),
    "nothing": (b"", "JSON Parse error: The document is empty"),
    "broken": (b"{", "JSON Parse error: "),
    "broken with NaN": (b'{"instances": [NaN}', "JSON Parse error: "),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "JSON Parse error: .*1024 levels"),
    "nested with NaN": (b"[" * 100_000 + b"NaN" + b"]" * 100_000, "JSON Parse error: "),
    "ragged": ({"instances": [[1.0, 2.0], [3.0]]}, "element: 1 .*Expecting tensor size: 2 but got: 1"),
    "beyond": ({"instances": [[[[1e39]]]]}, "to float without loss of precision"),
    "other input": ({"instances": [{"picture": ROWS[0]}]}, "keys must be equal to: image"),
    "extra input": (
        {"instances": [{"image": ROWS[0], "mask": 1}]},
        "element: 0.*keys must be equal to: image",
    ),
    "no column": ({"inputs": {"mask": 1}}, "Missing named input: image in 'inputs' object"),
    "rows differ": ({"instances": [{"image": ROWS[0]}, {"other": 1}]}, "element: 1 .*keys must be equal to"),
    "mixed": ({"instances": [1.0, {"image": 1}]}, "Expecting value/list but got object at item 1"),
    "mixed the other way": ({"instances": [{"image": 1}, 1.0]}, "Expecting object but got list at item 1"),
    "signature": (
        {"signature_name": "x", "instances": ROWS},
        'Serving signature name: "x" not found in signature def; .*encoded, serving_default',
    ),
    "signature's type": ({"signature_name": 1, "instances": ROWS}, "'signature_name' key must be a string"),
    "no picture": (
        {"signature_name": "encoded", "instances": [b64(b"hello")]},
        "the model refused .*(?i:image|format)",
    ),
    "no base64": ({"signature_name": "encoded", "instances": [{"b64": "?"}]}, "base64"),
    "b64 of a number": ({"signature_name": "encoded", "inputs": {"image_bytes": [{"b64": 1}]}}, "base64"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_body_is_refused_with_what_was_expected(tfs: ServerProcess, case: str) -> None:
    body, message = BAD[case]
    answer = tfs.call("POST", PREDICT, body)
    assert answer.status == 400, answer.body
    assert_matches(message, answer.error)
    assert tfs.call("POST", PREDICT, {"instances": ROWS}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/nope:predict", 404, r"^Servable not found for request: Latest\(nope\)$"),
        ("POST", "/v1/models/fashion/versions/99:predict", 404, r": Specific\(fashion, 99\)$"),
        ("POST", "/v1/models/fashion/versions/99999999999999999999:predict", 400, "convert version"),
        ("POST", "/v1/models/fashion/labels/nope:predict", 400, "Unrecognized servable version label: nope"),
        ("GET", "/v1/models/fashion/labels/nope", 400, "Unrecognized servable version label: nope"),
        ("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("GET", "/v1/models/nope/metadata", 404, "Servable not found"),
        ("GET", "/v1/models/fashion/versions/99", 404, "Could not find version 99 of model fashion"),
        ("GET", "/v1/models", 400, "Missing model name in request"),
        ("POST", "/v1/models/nope/labels/x:predict", 400, "Unrecognized servable version label: x$"),
        ("GET", "/v1/models/versions/1", 400, "Missing model name in request"),
        ("GET", "/v1/models/nope/METADATA", 404, "Could not find any versions of model nope"),
        ("POST", "/v1/models/fashion/Versions/99:predict", 404, r": Specific\(fashion, 99\)$"),
        ("POST", "/v1/models/fashion/versions/%D9%A1:predict", 400, "Malformed request"),
        ("OPTIONS", "/v1/models/fashion", 400, "Malformed request: OPTIONS /v1/models/fashion$"),
        ("GET", "/nothing", 404, "/nothing"),
        ("GET", PREDICT, 400, f"Malformed request: GET {PREDICT}"),
        ("POST", "/v1/models/fashion", 400, "Malformed request: POST /v1/models/fashion"),
        ("POST", "/v1/models/fashion:explain", 400, "Malformed request: POST /v1/models/fashion:explain"),
        ("POST", "/v1/models/fashion/versions/x:predict", 400, "Malformed request"),
        ("DELETE", "/v1/models/fashion", 400, "Malformed request: DELETE"),
    ],
)
def test_what_does_not_exist_is_a_json_error(
    tfs: ServerProcess, method: str, path: str, status: int, message: str
) -> None:
    answer = tfs.call(method, path, {"instances": ROWS} if method == "POST" else None)
    assert answer.status == status, answer.body
    assert_matches(message, answer.error)


def test_what_is_not_finite_passes_both_ways(tfs: ServerProcess) -> None:
    half = "/v1/models/half_plus_two:predict"
    answer = tfs.call("POST", half, b'{"instances": [NaN, Infinity, -Infinity, 1]}')
    assert b"".join(answer.body.split()) == b'{"predictions":[NaN,Infinity,-Infinity,2.5]}'
    assert tfs.call("POST", half, {"inputs": []}).json() == {"outputs": []}


def test_a_body_of_100_mb_is_refused(tfs: ServerProcess) -> None:
    answer = tfs.call("POST", PREDICT, b" " * 100_000_000)
    assert (answer.status, "at most 1048576 bytes" in answer.error) == (413, True)


def test_the_metrics_lie_at_the_configured_path(tfs: ServerProcess) -> None:
    tfs.call("POST", PREDICT, {"instances": ROWS})
    page = tfs.call("GET", "/monitoring/prometheus/metrics").body.decode()
    assert 'tandem_requests_total{code="OK",model="fashion",protocol="tfs-rest"' in page


def test_the_log_says_what_server_this_is_and_which_flags_do_nothing(tfs: ServerProcess) -> None:
    assert "not the original tensorflow_model_server" in tfs.log
    assert tfs.log.count("--flush_filesystem_caches is accepted, but does nothing") == 1
