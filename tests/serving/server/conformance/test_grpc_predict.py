"""PredictionService.Predict: apis/predict.proto, servables/tensorflow/predict_util.cc and predict_impl_test.cc."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ..processes import ServerProcess
from .clients import Grpc, code_and_details, example, floats, predict_request, value
from .saved_models import DTYPES


def array(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.make_ndarray(tensor)


def test_predict(grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, VerifyPredictRequest: the value as float_val, and the whole model spec."""
    from tensorflow.core.framework.types_pb2 import DT_FLOAT

    answer = grpc_client.predict(predict_request("half_plus_two", x=floats([2.0])))
    assert list(answer.outputs) == ["y"]
    tensor = answer.outputs["y"]
    assert tensor.dtype == DT_FLOAT
    # server_core.h: outputs are serialized "as proto fields" by default, and so clients read float_val.
    assert list(tensor.float_val) == [3.0]
    assert not tensor.tensor_content
    assert [dim.size for dim in tensor.tensor_shape.dim] == [1]
    spec = answer.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", "serving_default", 123)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(grpc_client: Grpc, dtype: str) -> None:
    """predict.proto takes any TensorProto that the graph takes."""
    values: Any = {"string": np.array([b"a\xff\x00", b""], object), "bool": np.array([True, False])}.get(
        dtype
    )
    if values is None:
        values = np.array([0, 1, 100], dtype)
    answer = grpc_client.predict(predict_request("types", dtype, x=values))
    result = array(answer.outputs["y"])
    assert result.dtype == values.dtype
    assert result.tolist() == values.tolist()
    assert answer.model_spec.signature_name == dtype


def test_scalars_nan_and_infinities(grpc_client: Grpc) -> None:
    """Tensors as they are."""
    answer = grpc_client.predict(predict_request("shapes", "scalar", x=floats(3)))
    assert array(answer.outputs["y"]).shape == ()
    assert array(answer.outputs["y"]) == 6
    values = floats([np.nan, np.inf, -np.inf])
    answer = grpc_client.predict(predict_request("types", "float32", x=values))
    assert np.array_equal(array(answer.outputs["y"]), values, equal_nan=True)


def test_output_filter(grpc_client: Grpc) -> None:
    """predict.proto: the named outputs only; without names all of them."""
    request = predict_request("shapes", "two_out", x=floats([1]))
    assert set(grpc_client.predict(request).outputs) == {"double", "half"}
    request.output_filter.append("half")
    assert list(grpc_client.predict(request).outputs) == ["half"]
    request.output_filter[:] = ["wrong"]
    assert code_and_details(grpc_client.predict, request)[0] == "INVALID_ARGUMENT"


def test_inputs_that_do_not_fit(grpc_client: Grpc) -> None:
    """predict_impl_test.cc, InputTensorsHaveWrongKeys and the like; the graph's own: nothing is cast."""
    for request in (
        predict_request("half_plus"),
        predict_request("half_plus", x=floats([1]), more=floats([1])),
        predict_request("half_plus", wrong=floats([1])),
        predict_request("half_plus", x=np.array([1], np.int32)),
        predict_request("half_plus", x=np.array([1], np.float64)),
        predict_request("half_plus", x=np.array([b"1"], object)),
        predict_request("shapes", "two_in", a=floats([1, 2]), b=floats([1, 2, 3])),
        predict_request("shapes", "fails", x=floats([11])),
    ):
        code, details = code_and_details(grpc_client.predict, request)
        assert code == "INVALID_ARGUMENT", details


def test_signatures(grpc_client: Grpc) -> None:
    """predict_util.cc, VerifySignature: those of other methods, too; an unknown one is FAILED_PRECONDITION."""
    serialized = np.array([example(x=2.0).SerializeToString()], object)
    answer = grpc_client.predict(predict_request("half_plus_two", "regress_x_to_y", inputs=serialized))
    assert array(answer.outputs["outputs"]).tolist() == [[3.0]]
    request = predict_request("half_plus", "wrong", x=floats([1]))
    code, details = code_and_details(grpc_client.predict, request)
    assert code == "FAILED_PRECONDITION"
    assert "'wrong'; it has: " in details


def test_model_specs(grpc_client: Grpc) -> None:
    """server_core.cc, ServableRequestFromModelSpec: versions; and what is not there."""
    for version, expected in ((1, 2.0), (2, 3.0), (3, 4.0)):
        request = predict_request("half_plus", x=floats([2]))
        request.model_spec.version.value = version
        answer = grpc_client.predict(request)
        assert list(answer.outputs["y"].float_val) == [expected]
        assert answer.model_spec.version.value == version
    request.model_spec.version.value = 99
    assert code_and_details(grpc_client.predict, request)[0] == "NOT_FOUND"
    request.model_spec.version_label = "wrong"
    assert code_and_details(grpc_client.predict, request)[0] == "INVALID_ARGUMENT"
    request = predict_request("foo", x=floats([2]))
    assert code_and_details(grpc_client.predict, request)[0] == "NOT_FOUND"
    # predict_impl_test.cc, MissingOrEmptyModelSpec.
    request.model_spec.name = ""
    assert code_and_details(grpc_client.predict, request)[0] == "INVALID_ARGUMENT"
    request.ClearField("model_spec")
    assert code_and_details(grpc_client.predict, request)[0] == "INVALID_ARGUMENT"


def test_large_messages_and_many_rows(grpc_client: Grpc) -> None:
    """server.cc, SetMaxMessageSize(int32 max): more than gRPC's own 4 MiB go in; nothing limits rows."""
    text = b"a" * 3_000_000
    request = predict_request("types", "bytes_in", x_bytes=np.array([text, text], object))
    assert list(grpc_client.predict(request).outputs["y"].string_val) == [text, text]
    request = predict_request("shapes", "to_scalar", x=np.ones(100_000, np.float32))
    assert list(grpc_client.predict(request).outputs["y"].float_val) == [100_000.0]


def test_calls_do_not_wait_for_a_slow_one_and_it_ends_with_its_deadline(
    server: ServerProcess, grpc_client: Grpc
) -> None:
    """server.h gives HTTP and gRPC threads of their own; prediction_service_impl.cc runs within the client's time."""
    slow = predict_request("shapes", "slow", rounds=np.array([6000], np.int32))
    running = grpc_client.predictions.Predict.future(slow, 100)
    late = code_and_details(grpc_client.predictions.Predict, slow, 0.2)
    grpc_client.status("half_plus")
    assert server.call("GET", "/v1/models/half_plus").status == 200
    assert grpc_client.predict(predict_request("half_plus", x=floats([2]))).outputs["y"].float_val == [4.0]
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": 1.0}) == 2.0
    assert not running.done()
    assert late[0] == "DEADLINE_EXCEEDED"
    assert list(running.result().outputs["y"].float_val) == [6000.0]
