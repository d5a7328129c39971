"""Metadata and status by REST and gRPC: api_rest, get_model_metadata_impl_test.cc, get_model_status_impl_test.cc."""

from __future__ import annotations

from typing import Any

from ..processes import Answer, ServerProcess
from .clients import SECONDS, Grpc, code_and_details


def state(version: int) -> dict[str, Any]:
    return {
        "version": str(version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def get(server: ServerProcess, path: str) -> Answer:
    answer = server.call("GET", path)
    assert answer.headers["Content-Type"] == "application/json"
    return answer


def test_status(server: ServerProcess) -> None:
    """tensorflow_model_server_test.py, testGetStatusREST: the whole document; versions are strings."""
    answer = get(server, "/v1/models/half_plus_two")
    assert answer.status == 200
    assert answer.json() == {"model_version_status": [state(123)]}
    assert get(server, "/v1/models/half_plus_two/versions/123").json() == {
        "model_version_status": [state(123)]
    }


def test_status_is_printed_in_lines(server: ServerProcess) -> None:
    """api_rest, "Example": scripts and probes look for '"state": "AVAILABLE"', with its space."""
    lines = (
        "{",
        ' "model_version_status": [',
        "  {",
        '   "version": "123",',
        '   "state": "AVAILABLE",',
        '   "status": {',
        '    "error_code": "OK",',
        '    "error_message": ""',
        "   }",
        "  }",
        " ]",
        "}",
    )
    assert get(server, "/v1/models/half_plus_two").body.decode().splitlines() == list(lines)


def test_metadata_is_printed_in_lines(server: ServerProcess) -> None:
    """http_rest_api_util.cc, ToJsonString: two messages as protobuf prints them, put together by hand."""
    text = get(server, "/v1/models/half_plus/metadata").body.decode()
    assert text.startswith(
        '{\n"model_spec":{\n "name": "half_plus",\n "signature_name": "",\n "version": "3"\n}\n,\n'
    )
    assert '"metadata": {"signature_def": {\n "signature_def": {\n  "' in text
    assert '    "x": {\n     "' in text


def test_status_of_every_version(server: ServerProcess) -> None:
    """api_rest: all versions without /versions; get_model_status_impl.cc goes through a map from the latest on."""
    entries = get(server, "/v1/models/half_plus").json()["model_version_status"]
    assert sorted(entries, key=lambda entry: str(entry["version"])) == [state(1), state(2), state(3)]
    assert get(server, "/v1/models/half_plus/versions/2").json() == {"model_version_status": [state(2)]}


def test_status_lists_the_latest_version_first(server: ServerProcess) -> None:
    """servable_state_monitor.h: VersionMap is ordered by std::greater."""
    entries = get(server, "/v1/models/half_plus").json()["model_version_status"]
    assert [entry["version"] for entry in entries] == ["3", "2", "1"]


def test_status_of_what_is_not_there(server: ServerProcess) -> None:
    """get_model_status_impl.cc: NotFound."""
    for path in ("/v1/models/foo", "/v1/models/foo/versions/1", "/v1/models/half_plus/versions/99"):
        answer = get(server, path)
        assert answer.status == 404, path
        assert answer.error


def test_status_over_grpc(grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testGetModelStatus; get_model_status_impl_test.cc."""
    assert grpc_client.status("half_plus_two") == {123: ("AVAILABLE", 0, "")}
    assert grpc_client.status("half_plus") == dict.fromkeys((1, 2, 3), ("AVAILABLE", 0, ""))
    assert grpc_client.status("half_plus", 2) == {2: ("AVAILABLE", 0, "")}
    assert code_and_details(grpc_client.status, "foo")[0] == "NOT_FOUND"
    assert code_and_details(grpc_client.status, "half_plus", 99)[0] == "NOT_FOUND"


def test_status_without_a_model_spec(grpc_client: Grpc) -> None:
    """get_model_status_impl_test.cc, MissingOrEmptyModelSpecFailure: INVALID_ARGUMENT without, NOT_FOUND if empty."""
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

    call = grpc_client.models.GetModelStatus
    code, _ = code_and_details(call, GetModelStatusRequest(), SECONDS)
    assert code == "INVALID_ARGUMENT"
    request = GetModelStatusRequest()
    request.model_spec.SetInParent()
    assert code_and_details(call, request, SECONDS)[0] == "NOT_FOUND"


def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


def test_metadata(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, GetModelMetadata: testdata/saved_model_half_plus_two_2_versions_metadata.json.

    Every field of the proto, also those with the default value, names as in the proto, 64-bit numbers as strings.
    """
    answer = get(server, "/v1/models/half_plus_two/metadata")
    assert answer.status == 200
    document = answer.json()
    assert list(document) == ["model_spec", "metadata"]
    spec = document["model_spec"]
    assert (spec["name"], spec["signature_name"], spec["version"]) == ("half_plus_two", "", "123")
    assert list(document["metadata"]) == ["signature_def"]
    assert list(document["metadata"]["signature_def"]) == ["signature_def"]
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {
        *("serving_default", "regress_x_to_y", "regress_x_to_y2", "regress_x2_to_y3"),
        *("classify_x_to_y", "classify_x2_to_y3", "classify_labels", "classify_names"),
    }
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"] == {"x": tensor("x:0", "DT_FLOAT", -1, 1)}
    assert default["outputs"] == {"y": tensor("y:0", "DT_FLOAT", -1, 1)}
    regress = signatures["regress_x_to_y"]
    assert regress["method_name"] == "tensorflow/serving/regress"
    unknown = {"dim": [], "unknown_rank": True}
    assert regress["inputs"] == {
        "inputs": {"dtype": "DT_STRING", "tensor_shape": unknown, "name": "tf_example:0"}
    }
    assert regress["outputs"] == {"outputs": tensor("y:0", "DT_FLOAT", -1, 1)}


def test_metadata_has_every_field(server: ServerProcess) -> None:
    """testdata/saved_model_half_plus_two_2_versions_metadata.json: `defaults` as well, since TensorFlow has it."""
    document = get(server, "/v1/models/half_plus_two/metadata").json()
    for signature in document["metadata"]["signature_def"]["signature_def"].values():
        assert set(signature) == {"inputs", "outputs", "method_name", "defaults"}
        assert signature["defaults"] == {}


def test_metadata_of_tensorflow_2(server: ServerProcess) -> None:
    """testdata/saved_model_half_plus_two_tf2_2_versions_metadata.json: as saved, the signature of the init op too."""
    signatures = get(server, "/v1/models/half_plus/metadata").json()["metadata"]["signature_def"][
        "signature_def"
    ]
    assert set(signatures) == {"serving_default", "__saved_model_init_op"}
    assert signatures["serving_default"]["inputs"] == {"x": tensor("serving_default_x:0", "DT_FLOAT", -1)}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    init = signatures["__saved_model_init_op"]
    assert (init["inputs"], init["method_name"]) == ({}, "")
    unknown = {"dim": [], "unknown_rank": True}
    output = {"dtype": "DT_INVALID", "tensor_shape": unknown, "name": "NoOp"}
    assert init["outputs"] == {"__saved_model_init_op": output}


def test_metadata_of_versions(server: ServerProcess) -> None:
    """api_rest: /versions/N, the latest without it; what is not there is 404, as for a predict."""
    assert get(server, "/v1/models/half_plus/metadata").json()["model_spec"]["version"] == "3"
    assert get(server, "/v1/models/half_plus/versions/1/metadata").json()["model_spec"]["version"] == "1"
    for path in ("/v1/models/foo/metadata", "/v1/models/half_plus/versions/99/metadata"):
        answer = get(server, path)
        assert answer.status == 404, path
        assert answer.error


def test_metadata_over_grpc(grpc_client: Grpc) -> None:
    """get_model_metadata_impl_test.cc, ReturnsSignaturesForValidModel: an Any with every signature."""
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half_plus_two"
    answer = grpc_client.predictions.GetModelMetadata(request, SECONDS)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half_plus_two", 123)
    assert list(answer.metadata) == ["signature_def"]
    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = SignatureDefMap()
    assert packed.Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert default.inputs["x"].name == "x:0"
    assert [dim.size for dim in default.outputs["y"].tensor_shape.dim] == [-1, 1]
    assert "classify_x_to_y" in signatures.signature_def


def test_metadata_requests_that_do_not_fit(grpc_client: Grpc) -> None:
    """get_model_metadata_impl_test.cc: without a field, with an unknown one, without a model spec; unknown models."""
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest

    call = grpc_client.predictions.GetModelMetadata
    request = GetModelMetadataRequest()
    request.model_spec.name = "half_plus_two"
    code, _ = code_and_details(call, request, SECONDS)
    assert code == "INVALID_ARGUMENT"
    request.metadata_field.append("wrong")
    code, _ = code_and_details(call, request, SECONDS)
    assert code == "INVALID_ARGUMENT"
    request.metadata_field[:] = ["signature_def"]
    request.model_spec.version.value = 5
    assert code_and_details(call, request, SECONDS)[0] == "NOT_FOUND"
    request.model_spec.name = "foo"
    assert code_and_details(call, request, SECONDS)[0] == "NOT_FOUND"
    request.ClearField("model_spec")
    assert code_and_details(call, request, SECONDS)[0] == "INVALID_ARGUMENT"
