"""TensorFlow Serving's REST and gRPC with a model of pictures and small limits; the rest is in `conformance`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from .artifacts import encode, images, logits
from .conformance.clients import Grpc, code_and_details, floats, predict, predict_request, value
from .processes import ServerProcess, assert_matches, assert_refused

BATCH = images(2)


@pytest.fixture(scope="module")
def client(tfs: ServerProcess) -> Iterator[Grpc]:
    with Grpc(tfs.grpc) as stubs:
        yield stubs


def array(answer: Any, name: str) -> Any:
    import tensorflow as tf

    return tf.make_ndarray(answer.outputs[name])


def test_pictures_that_the_graph_decodes(tfs: ServerProcess, client: Grpc) -> None:
    files = [encode(picture) for picture in BATCH]
    instances = [{"b64": base64.b64encode(file).decode()} for file in files]
    rows = value(tfs, "fashion", {"signature_name": "encoded", "instances": instances})
    np.testing.assert_allclose([row["logits"] for row in rows], logits(BATCH), atol=1e-5)
    answer = client.predict(predict_request("fashion", "encoded", image_bytes=files))
    np.testing.assert_allclose(array(answer, "logits"), logits(BATCH), atol=1e-5)
    refused = predict(tfs, "fashion", {"signature_name": "encoded", "instances": [{"b64": "aGVsbG8="}]})
    assert_refused(refused, 400, "the model refused .*(?i:image|format)")


def test_what_is_too_large_is_refused(tfs: ServerProcess, client: Grpc) -> None:
    answer = predict(tfs, "fashion", b" " * 20_000_000)
    assert (answer.status, "at most 1048576 bytes" in answer.error) == (413, True)
    large = predict_request("fashion", image=np.zeros((1000, 28, 28, 1), np.float32))
    assert code_and_details(client.predict, large)[0] == "RESOURCE_EXHAUSTED"
    # One value may stand for all, but not for gigabytes.
    bomb = predict_request("half_plus_two", x=floats([1]))
    bomb.inputs["x"].tensor_shape.dim[0].size = 10**6
    bomb.inputs["x"].ClearField("tensor_content")
    bomb.inputs["x"].float_val[:] = [1]
    code, details = code_and_details(client.predict, bomb)
    assert code == "RESOURCE_EXHAUSTED"
    assert_matches("'x': expected at most 1048576 bytes, got 1 values for 4000000 bytes", details)
    assert value(tfs, "half_plus_two", {"instances": [1.0, 2.0]}) == [2.5, 3.0]
