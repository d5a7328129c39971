"""Bad input at every REST endpoint: a 4xx that says what was expected and what came, and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from serving import targets
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.http import Answer, HttpConnection
from tests.e2e.conftest import TARGETS, Stack
from tests.pictures import Images

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ROWS, OPEN_INFERENCE = ("tf-serving", "torchserve"), ("litert", "onnxruntime")
REST = [*ROWS, *OPEN_INFERENCE]
GOOD = np.full((1, 28, 28, 1), 0.5, np.float32)


def rest(settings: Settings, target: str) -> tuple[int, str]:
    """Port and path of predictions with the model's own name."""
    port: int = getattr(settings, f"{target.replace('-', '_')}_rest_port")
    paths = {"tf-serving": "/v1/models/{}:predict", "torchserve": "/predictions/{}"}
    return port, paths.get(target, "/v2/models/{}/infer")


def send(
    stack: Stack, target: str, body: bytes, model: str = "fashion", content: str = "application/json"
) -> Answer:
    port, path = rest(stack.settings, target)
    connection = HttpConnection("127.0.0.1", port)
    try:
        return connection.exchange("POST", path.format(model), body, {"Content-Type": content})
    finally:
        connection.close()


def in_form_of(target: str, images: np.ndarray) -> bytes:
    if target in ROWS:
        return json.dumps({"instances": images.tolist()}).encode()
    data = images.ravel().tolist()
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def message(answer: Answer) -> str:
    fields = json.loads(answer.body)
    return str(fields["error"] if "error" in fields else fields["message"])


def still_serves(stack: Stack, target: str) -> None:
    client = targets.load(target).clients(stack.settings)["rest"]
    assert client.predict({"image": GOOD})["logits"].shape == (1, 10)
    client.close()


BODIES: dict[str, Callable[[str], bytes]] = {
    "wrong shape": lambda t: in_form_of(t, np.zeros((1, 14, 14, 1), np.float32)),
    "no channels": lambda t: in_form_of(t, np.zeros((1, 28, 28), np.float32)),
    "words for numbers": lambda t: in_form_of(t, np.full((1, 28, 28, 1), "white")),
    "NaN": lambda t: in_form_of(t, np.full((1, 28, 28, 1), np.nan)),
    "empty batch": lambda t: in_form_of(t, np.zeros((0, 28, 28, 1), np.float32)),
    "broken JSON": lambda t: in_form_of(t, GOOD)[:-5],
    "not JSON": lambda _: b"\x00\x01\x02",
    "nothing": lambda _: b"",
    "other keys": lambda _: b'{"pictures": []}',
    "a list": lambda _: b"[1, 2, 3]",
    "nested deeply": lambda _: b"[" * 100_000 + b"]" * 100_000,
    "ragged": lambda t: (
        in_form_of(t, GOOD).replace(b"0.5, ", b"", 1)
        if t in OPEN_INFERENCE
        else b'{"instances": [[[[1]], [[1], [2]]]]}'
    ),
    "a picture that is none": lambda t: (
        b'{"instances": [{"b64": "bm8gcGljdHVyZQ=="}], "signature_name": "encoded"}'
        if t in ROWS
        else b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["bm8gcGljdHVyZQ=="]}]}'
    ),
}


@pytest.mark.parametrize("target", REST)
@pytest.mark.parametrize("kind", BODIES)
def test_bad_bodies_are_refused_in_words(stack: Stack, target: str, kind: str) -> None:
    answer = send(stack, target, BODIES[kind](target))
    assert 400 <= answer.status < 500, answer
    assert len(message(answer)) > 15, answer
    still_serves(stack, target)


@pytest.mark.parametrize("target", REST)
def test_wrong_shape_tells_both_shapes(stack: Stack, target: str) -> None:
    told = message(send(stack, target, BODIES["wrong shape"](target)))
    assert "28" in told
    assert "14" in told


@pytest.mark.parametrize("target", REST)
def test_unknown_model_version_and_path_are_404(stack: Stack, target: str) -> None:
    port, path = rest(stack.settings, target)
    version = path.replace(":predict", "/versions/999:predict").replace("/infer", "/versions/999/infer")
    version = version if version != path else path + "/999"
    connection = HttpConnection("127.0.0.1", port)
    for address in (path.format("nobody"), version.format("fashion"), "/v9/nowhere"):
        body, headers = in_form_of(target, GOOD), {"Content-Type": "application/json"}
        answer = connection.exchange("POST", address, body, headers)
        # The original TensorFlow Serving answers 400 to a malformed path.
        assert answer.status in (400, 404, 405), (address, answer)
        assert message(answer)
    connection.close()
    still_serves(stack, target)


@pytest.mark.parametrize("target", REST)
def test_a_body_of_100_mb_is_refused(stack: Stack, target: str) -> None:
    try:
        answer = send(stack, target, b"[" + b"0," * 50_000_000 + b"0]")
    except TargetError as error:
        # The server may hang up while we are still sending.
        assert "does not answer" in str(error)  # noqa: PT017
    else:
        assert answer.status == 413, answer
    still_serves(stack, target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "images", [np.zeros((1, 14, 14, 1)), np.full((1, 28, 28, 1), np.nan)], ids=["shape", "NaN"]
)
def test_every_protocol_refuses_and_goes_on(stack: Stack, target: str, images: np.ndarray) -> None:
    bad: Images = images.astype(np.float32)
    for protocol, client in targets.load(target).clients(stack.settings).items():
        with pytest.raises((TargetError, ValueError)) as refusal:
            client.predict({"image": bad})
        assert len(str(refusal.value)) > 20, protocol
        assert client.predict({"image": GOOD})["logits"].shape == (1, 10), protocol
        client.close()


def test_the_gateway_answers_in_json_too(stack: Stack) -> None:
    connection = HttpConnection("127.0.0.1", stack.settings.tfjs_port)
    for address in ("/nothing", "/tfjs/fashion/999/model.json", "/api/redis/"):
        answer = connection.exchange("GET", address)
        assert answer.status == 404
        assert message(answer)
    address, body = "/api/tf-serving/v1/models/fashion:predict", in_form_of("tf-serving", GOOD)
    assert connection.exchange("POST", address, body, {}).status == 200
    connection.close()
