"""The same data plane over LiteRT: only what the runtime could get wrong is asked again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from serving.server.backends.litert import load
from serving.server.errors import BackendError

from .artifacts import images, logits
from .processes import ServerProcess

pytestmark = pytest.mark.slow  # TensorFlow is imported, which writes the files.


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


def test_every_signature_of_a_file_is_served(tmp_path: Path) -> None:
    import tensorflow as tf

    class Two(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def split(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"double": 2 * x, "next": x + 1}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=name) for name in ("a", "b")])  # type: ignore[untyped-decorator]
        def add(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"sum": a + b}

    two = Two()
    tf.saved_model.save(two, str(tmp_path / "saved"), {"split": two.split, "add": two.add})
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved"), signature_keys=["split", "add"]
    )
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    servable = load(tmp_path, "", 1)
    assert {key: signature.input_names for key, signature in servable.signatures.items()} == {
        "add": ("a", "b"),
        "split": ("x",),
    }
    assert servable.signatures["split"].inputs[0].shape == (-1, 2)
    for rows in (1, 3, 2):
        x = images(rows)[:, 0, :2, 0]
        answer = servable.run("split", {"x": x}, ["next", "double"])
        assert list(answer) == ["next", "double"]
        np.testing.assert_allclose(np.asarray(answer["next"], np.float32), x + 1)
        np.testing.assert_allclose(np.asarray(answer["double"], np.float32), 2 * x)
        total = servable.run("add", {"a": x[:, 0].copy(), "b": x[:, 1].copy()}, ["sum"])["sum"]
        np.testing.assert_allclose(np.asarray(total, np.float32), x.sum(1), atol=1e-6)
    servable.close()
    with pytest.raises(BackendError, match="after its version was unloaded"):
        servable.run("split", {"x": np.ones((1, 2), np.float32)}, ["next"])
