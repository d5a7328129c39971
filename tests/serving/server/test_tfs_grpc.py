"""TensorFlow Serving's gRPC, as its clients see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from .artifacts import encode, images, logits
from .conftest import CONFIG
from .processes import ServerProcess, assert_matches

if TYPE_CHECKING:
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow_serving.apis.predict_pb2 import PredictResponse

BATCH = images(2)


class Client:
    """The original's own stubs. They import TensorFlow, hence only here."""

    def __init__(self, channel: grpc.Channel) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(
        self, name: str = "fashion", signature: str = "", version: int | None = None, **inputs: object
    ) -> PredictResponse:
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = name, signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
            request.inputs[key].CopyFrom(proto)
        return self.prediction.Predict(request, timeout=20)


@pytest.fixture(scope="module")
def client(tfs: ServerProcess) -> Iterator[Client]:
    with grpc.insecure_channel(tfs.grpc) as channel:
        yield Client(channel)


def array(answer: PredictResponse, name: str) -> np.ndarray[Any, Any]:
    import tensorflow as tf

    values: np.ndarray[Any, Any] = tf.make_ndarray(answer.outputs[name])
    return values


def test_predict_answers_by_every_signature(client: Client) -> None:
    answer = client.predict(image=BATCH)
    np.testing.assert_allclose(array(answer, "logits"), logits(BATCH), atol=1e-5)
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "serving_default")
    pictures = client.predict(signature="encoded", image_bytes=[encode(picture) for picture in BATCH])
    np.testing.assert_allclose(array(pictures, "logits"), logits(BATCH), atol=1e-5)
    half = client.predict("half_plus_two", version=1, x=np.array([1, 2], np.float32))
    assert array(half, "y").tolist() == [2.5, 3.0]


def test_metadata_and_status(client: Client) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "fashion"
    packed = client.prediction.GetModelMetadata(asked).metadata["signature_def"]
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert packed.Unpack(definitions)
    shape = definitions.signature_def["serving_default"].inputs["image"].tensor_shape
    assert [dim.size for dim in shape.dim] == [-1, 28, 28, 1]

    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "half_plus_two"
    (version,) = client.models.GetModelStatus(status).model_version_status
    assert (version.version, version.State.Name(version.state)) == (1, "AVAILABLE")


def _bomb() -> TensorProto:
    import tensorflow as tf

    proto = tf.make_tensor_proto(np.float32(0))
    proto.tensor_shape.CopyFrom(tf.TensorShape([10**6, 28, 28, 1]).as_proto())
    return proto


def test_what_is_not_finite_and_what_is_empty_pass(client: Client) -> None:
    answer = client.predict("half_plus_two", x=np.array([np.nan, np.inf, -np.inf, 1], np.float32))
    np.testing.assert_array_equal(array(answer, "y"), np.array([np.nan, np.inf, -np.inf, 2.5], np.float32))
    assert array(client.predict(image=np.zeros((0, 28, 28, 1), np.float32)), "logits").shape == (0, 10)


@pytest.mark.parametrize(
    ("inputs", "code", "message"),
    [
        ({"image": np.zeros((1, 27, 28, 1), np.float32)}, "INVALID_ARGUMENT", "expected shape"),
        ({"image": np.zeros((1, 28, 28, 1), np.int32)}, "INVALID_ARGUMENT", "dtype float32, got int32"),
        ({"image": [b"a picture?"]}, "INVALID_ARGUMENT", "dtype float32, got bytes"),
        ({"image": _bomb}, "RESOURCE_EXHAUSTED", "at most 1048576 bytes, got 1 values for 3136000000 bytes"),
        ({}, "INVALID_ARGUMENT", "input size does not match signature: 0!=1 .*Missing but required: {image}"),
        ({"image": BATCH, "mask": BATCH}, "INVALID_ARGUMENT", "Sent extra: {mask}"),
        ({"signature": "encoded", "image_bytes": [b"no picture"]}, "INVALID_ARGUMENT", "the model refused"),
        ({"signature": "x", "image": BATCH}, "FAILED_PRECONDITION", 'signature key "x" not found'),
        ({"name": "nope", "image": BATCH}, "NOT_FOUND", r"Servable not found for request: Latest\(nope\)$"),
        ({"version": 99, "image": BATCH}, "NOT_FOUND", r"not found for request: Specific\(fashion, 99\)$"),
        ({"name": "", "image": BATCH}, "INVALID_ARGUMENT", "no name specified"),
        ({"image": np.zeros((1000, 28, 28, 1), np.float32)}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_a_bad_request_is_refused_with_what_was_expected(
    client: Client, inputs: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.predict(**{name: value() if callable(value) else value for name, value in inputs.items()})
    call: Any = failure.value
    assert call.code().name == code
    assert_matches(message, call.details())
    assert client.predict(image=BATCH).model_spec.version.value == 1


def test_a_reload_request_changes_the_versions_and_a_bad_one_changes_nothing(
    client: Client, saved_models: Path
) -> None:
    from google.protobuf import text_format
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

    def reload(text: str) -> None:
        request = ReloadConfigRequest()
        text_format.Parse(text, request.config)
        client.models.HandleReloadConfigRequest(request, timeout=30)

    for version in (2, 1):
        reload(CONFIG.format(root=saved_models, version=version))
        assert client.predict(image=BATCH).model_spec.version.value == version
    with pytest.raises(grpc.RpcError) as failure:
        reload('model_config_list { config { name: "fashion" } }')
    call: Any = failure.value
    assert call.code().name == "INVALID_ARGUMENT"
    assert client.predict(image=BATCH).model_spec.version.value == 1
