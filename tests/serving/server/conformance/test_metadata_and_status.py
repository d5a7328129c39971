"""Metadata and status by REST and gRPC: api_rest, get_model_metadata_impl_test.cc, get_model_status_impl_test.cc."""

from __future__ import annotations

from typing import Any

from ..processes import Answer, ServerProcess
from .clients import SECONDS, Grpc, code_and_details


def state(version: int) -> dict[str, Any]:
    ok = {"error_code": "OK", "error_message": ""}
    return {"version": str(version), "state": "AVAILABLE", "status": ok}


def get(server: ServerProcess, path: str) -> Answer:
    answer = server.call("GET", path)
    assert answer.headers["Content-Type"] == "application/json"
    return answer


def test_status(server: ServerProcess, grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testGetStatusREST: the whole document, the latest version first."""
    assert get(server, "/v1/models/half_plus_two").json() == {"model_version_status": [state(123)]}
    every = {"model_version_status": [state(3), state(2), state(1)]}
    assert get(server, "/v1/models/half_plus").json() == every
    assert get(server, "/v1/models/half_plus/versions/2").json() == {"model_version_status": [state(2)]}
    # api_rest, "Example": scripts and probes look for this, with its space.
    assert '   "state": "AVAILABLE",\n' in get(server, "/v1/models/half_plus_two").body.decode()
    assert grpc_client.status("half_plus") == dict.fromkeys((1, 2, 3), ("AVAILABLE", 0, ""))
    assert grpc_client.status("half_plus", 2) == {2: ("AVAILABLE", 0, "")}
    assert code_and_details(grpc_client.status, "foo")[0] == "NOT_FOUND"
    assert code_and_details(grpc_client.status, "half_plus", 99)[0] == "NOT_FOUND"


def test_status_needs_a_model(grpc_client: Grpc) -> None:
    """get_model_status_impl_test.cc, MissingOrEmptyModelSpecFailure."""
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

    request = GetModelStatusRequest()
    for code in ("INVALID_ARGUMENT", "NOT_FOUND"):
        assert code_and_details(grpc_client.models.GetModelStatus, request, SECONDS)[0] == code
        request.model_spec.SetInParent()


def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


UNKNOWN = {"dim": [], "unknown_rank": True}


def test_metadata(server: ServerProcess, grpc_client: Grpc) -> None:
    """http_rest_api_handler_test.cc, GetModelMetadata: testdata/saved_model_half_plus_two_2_versions_metadata.json.

    Every field of the proto, also those with the default value, names as in the proto, 64-bit numbers as strings.
    get_model_metadata_impl_test.cc, ReturnsSignaturesForValidModel: over gRPC an Any with every signature.
    """
    from google.protobuf.json_format import ParseDict
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

    document = get(server, "/v1/models/half_plus_two/metadata").json()
    assert list(document) == ["model_spec", "metadata"]
    assert document["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    assert list(document["metadata"]) == ["signature_def"]
    assert list(document["metadata"]["signature_def"]) == ["signature_def"]
    signatures = document["metadata"]["signature_def"]["signature_def"]
    for signature in signatures.values():
        assert set(signature) == {"inputs", "outputs", "method_name", "defaults"}
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"] == {"x": tensor("x:0", "DT_FLOAT", -1, 1)}
    assert default["outputs"] == {"y": tensor("y:0", "DT_FLOAT", -1, 1)}
    regress = signatures["regress_x_to_y"]
    assert (regress["method_name"], regress["defaults"]) == ("tensorflow/serving/regress", {})
    examples = {"dtype": "DT_STRING", "tensor_shape": UNKNOWN, "name": "tf_example:0"}
    assert regress["inputs"] == {"inputs": examples}

    request = GetModelMetadataRequest(model_spec={"name": "half_plus_two"}, metadata_field=["signature_def"])
    answer = grpc_client.predictions.GetModelMetadata(request, SECONDS)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half_plus_two", 123)
    assert list(answer.metadata) == ["signature_def"]
    packed = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(packed)
    assert packed == ParseDict(document["metadata"]["signature_def"], SignatureDefMap())


def test_metadata_of_tensorflow_2(server: ServerProcess) -> None:
    """testdata/saved_model_half_plus_two_tf2_2_versions_metadata.json: as saved, the signature of the init op too."""
    document = get(server, "/v1/models/half_plus/versions/1/metadata").json()
    assert document["model_spec"]["version"] == "1"
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "__saved_model_init_op"}
    assert signatures["serving_default"]["inputs"] == {"x": tensor("serving_default_x:0", "DT_FLOAT", -1)}
    output = {"dtype": "DT_INVALID", "tensor_shape": UNKNOWN, "name": "NoOp"}
    assert signatures["__saved_model_init_op"]["outputs"] == {"__saved_model_init_op": output}


def test_metadata_requests_that_do_not_fit(grpc_client: Grpc) -> None:
    """get_model_metadata_impl_test.cc: without a field, with an unknown one, without a model spec; unknown models."""
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest

    def code(*fields: str, **spec: Any) -> str:
        request = GetModelMetadataRequest(metadata_field=fields)
        if spec:
            request.model_spec.name = spec["name"]
            request.model_spec.version.value = spec.get("version", 123)
        return code_and_details(grpc_client.predictions.GetModelMetadata, request, SECONDS)[0]

    assert code(name="half_plus_two") == "INVALID_ARGUMENT"
    assert code("wrong", name="half_plus_two") == "INVALID_ARGUMENT"
    assert code("signature_def", name="half_plus_two", version=5) == "NOT_FOUND"
    assert code("signature_def", name="foo") == "NOT_FOUND"
    assert code("signature_def") == "INVALID_ARGUMENT"
