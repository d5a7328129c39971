"""The original's stubs and the requests that the tests send with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..processes import Answer, ServerProcess

SECONDS = 20


def predict(server: ServerProcess, model: str, body: dict[str, Any] | bytes, where: str = "") -> Answer:
    """POST /v1/models/MODEL[/versions/N|/labels/L]:predict."""
    return server.call("POST", f"/v1/models/{model}{where}:predict", body)


def value(server: ServerProcess, model: str, body: dict[str, Any] | bytes, where: str = "") -> Any:
    """What a predict that is to succeed answers under `predictions` or `outputs`."""
    answer = predict(server, model, body, where)
    assert answer.status == 200, answer.body
    document = answer.json()
    expected = "predictions" if b'"instances"' in body or "instances" in body else "outputs"
    assert list(document) == [expected]
    return document[expected]


class Grpc:
    """Both services over one channel."""

    def __init__(self, address: str) -> None:
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        self.predictions: Any = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> Grpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def predict(self, request: Any) -> Any:
        return self.predictions.Predict(request, SECONDS)

    def status(self, model: str, version: int | None = None) -> Any:
        """The states of a model's versions: version -> (state, error code, error message)."""
        from tensorflow_serving.apis import get_model_status_pb2 as proto

        request = proto.GetModelStatusRequest(model_spec={"name": model})
        if version is not None:
            request.model_spec.version.value = version
        names = proto.ModelVersionStatus.State.Name
        answer = self.models.GetModelStatus(request, SECONDS)
        return {
            one.version: (names(one.state), one.status.error_code, one.status.error_message)
            for one in answer.model_version_status
        }

    def reload(self, config: str) -> Any:
        """HandleReloadConfigRequest with a ModelServerConfig in text form."""
        from google.protobuf import text_format
        from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

        request = ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return self.models.HandleReloadConfigRequest(request, 60)


def predict_request(model: str, signature: str = "", **inputs: Any) -> Any:
    """A PredictRequest; inputs are arrays or TensorProtos."""
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    tensors = {
        name: array if hasattr(array, "tensor_shape") else tf.make_tensor_proto(array)
        for name, array in inputs.items()
    }
    return PredictRequest(model_spec={"name": model, "signature_name": signature}, inputs=tensors)


def floats(values: Any) -> Any:
    """A float32 array."""
    import numpy as np

    return np.array(values, np.float32)


def example(**features: float | int | bytes | list[float]) -> Any:
    """A tf.Example; floats and lists become float features, ints int64, bytes bytes."""
    from tensorflow.core.example.example_pb2 import Example

    message = Example()
    for name, content in features.items():
        feature = message.features.feature[name]
        if isinstance(content, bytes):
            feature.bytes_list.value.append(content)
        elif isinstance(content, int):
            feature.int64_list.value.append(content)
        else:
            feature.float_list.value.extend(content if isinstance(content, list) else [content])
    return message


def request_for(kind: str, signature: str, *examples: Any, model: str = "half_plus_two") -> Any:
    """A request of Classify or Regress."""
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
    from tensorflow_serving.apis.regression_pb2 import RegressionRequest

    message = ClassificationRequest if kind == "Classify" else RegressionRequest
    spec = {"name": model, "signature_name": signature}
    return message(model_spec=spec, input={"example_list": {"examples": examples}})


def multi(*signatures: str, examples: int = 1, method: str = "", model: str = "half_plus_two") -> Any:
    """A MultiInferenceRequest; names of signatures begin with their method, unless it is given."""
    from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest

    tasks = [
        {
            "model_spec": {"name": model, "signature_name": signature},
            "method_name": f"tensorflow/serving/{method or signature.partition('_')[0]}",
        }
        for signature in signatures
    ]
    return MultiInferenceRequest(
        tasks=tasks, input={"example_list": {"examples": [example(x=2.0)] * examples}}
    )


def write_warm_up(version: Path, *records: bytes) -> Path:
    """The warm-up file of a version, of serialized PredictionLogs."""
    import tensorflow as tf

    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return file


def code_and_details(call: Any, *arguments: Any) -> tuple[str, str]:
    """The name of the status code and the message of a call that is to fail."""
    import grpc

    try:
        answer = call(*arguments)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError(f"answered {str(answer)[:300]}")


def eventually(question: Any, seconds: float = 30) -> Any:
    """What `question` gives once that is true."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
    return answer
