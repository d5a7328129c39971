"""The same data plane over LiteRT: only what the runtime could get wrong is asked again."""

from __future__ import annotations

import numpy as np
import tritonclient.http as triton

from .artifacts import images, logits
from .processes import ServerProcess


def test_batches_of_changing_size_are_answered_and_names_are_kept(litert: ServerProcess) -> None:
    client = triton.InferenceServerClient(litert.http)
    for count in (1, 5, 2, 2, 1):
        batch = images(count, seed=count)
        given = triton.InferInput("image", list(batch.shape), "FP32")
        given.set_data_from_numpy(batch)
        answer = client.infer("fashion", [given])
        np.testing.assert_allclose(answer.as_numpy("logits"), logits(batch), atol=1e-5)
        np.testing.assert_allclose(answer.as_numpy("probabilities").sum(1), 1, atol=1e-5)
    assert client.get_model_metadata("fashion")["platform"] == "litert"
    client.close()


def test_a_wrong_shape_is_refused_and_the_next_request_answered(litert: ServerProcess) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [0, 1]}
    refused = litert.call("POST", "/v2/models/fashion/infer", {"inputs": [tensor]})
    assert (refused.status, "expected shape [-1, 28, 28, 1]" in refused.error) == (400, True)
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": [0] * 784}
    assert litert.call("POST", "/v2/models/fashion/infer", {"inputs": [tensor]}).status == 200
