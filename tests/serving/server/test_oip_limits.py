"""What a client can ask of the server at most, and how little of a client's words comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .artifacts import images
from .processes import ServerProcess, assert_refused

ONE = images(1)
LONG = 30_000_000
MOST = 200
"""Characters of a client in an error."""


def long(outputs: object = None, parameters: object = None, **changes: object) -> dict[str, object]:
    given = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": [0.0] * 784} | changes
    return {"inputs": [given], "outputs": outputs, "parameters": parameters}


NAME = "é" * (LONG // 2)
INFER = "/v2/models/fashion/infer"
BODIES: dict[str, Callable[[], dict[str, object]]] = {
    "input's name": lambda: long(name=NAME),
    "shape": lambda: long(shape=[1] * (LONG // 3)),
    "shape that is none": lambda: long(shape={NAME: []}),
    "data of words": lambda: long(data=[NAME, 1]),
    "data of too much": lambda: long(data=[1] * (LONG // 3)),
    "output's names": lambda: long([{"name": str(number)} for number in range(LONG // 30)]),
    "timeout": lambda: long(parameters={"timeout": [NAME]}),
}


def assert_short(told: str) -> None:
    assert len(told) < 2 * MOST, told
    assert told.count("é") <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("case", BODIES)
def test_an_error_of_rest_repeats_little_of_what_a_client_sent(controlled: ServerProcess, case: str) -> None:
    answer = controlled.call("POST", INFER, json.dumps(BODIES[case](), ensure_ascii=False).encode())
    assert answer.status == 400
    assert_short(answer.error)


def test_neither_do_errors_of_paths_headers_and_the_repository(controlled: ServerProcess) -> None:
    name = "x" * 4000
    answers = [
        controlled.call("GET", f"/v2/models/{name}"),
        controlled.call("GET", f"/{name}"),
        controlled.call("POST", f"/v2/repository/models/{name}/load"),
        controlled.call("POST", "/v2/repository/models/fashion/load", {"parameters": {f"file:{name}": 1}}),
        controlled.call("POST", "/v2/repository/index", {"ready": name}),
        controlled.call("POST", INFER, b"{}", Inference_Header_Content_Length=name),
        controlled.call("POST", INFER, b"{}", Content_Encoding=name),
    ]
    for answer in answers:
        assert 400 <= answer.status < 500
        assert_short(answer.error)


@pytest.mark.slow
def test_nor_does_an_error_of_grpc(controlled: ServerProcess) -> None:
    given = pb.ModelInferRequest.InferInputTensor
    many = given(name="image", datatype="FP32", shape=[1] * 5_000_000)
    with grpc.insecure_channel(controlled.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for asked in (
            pb.ModelInferRequest(model_name=NAME),
            pb.ModelInferRequest(model_name="fashion", model_version=NAME),
            pb.ModelInferRequest(model_name="fashion", inputs=[many], raw_input_contents=[b""]),
            pb.ModelStatisticsRequest(name="fashion", version=NAME),
            pb.RepositoryModelLoadRequest(model_name=NAME),
        ):
            with pytest.raises(grpc.RpcError) as failure:
                getattr(stub, type(asked).__name__.removesuffix("Request"))(asked)
            call: Any = failure.value
            assert call.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
            assert_short(call.details())


@pytest.mark.parametrize(
    ("model", "name", "shape", "status", "message"),
    [
        ("fashion", "image", [7_800_000], 413, "at most 131072 elements of BYTES"),
        ("fashion", "nope", [7_800_000], 400, "unknown input 'nope'"),
        ("same_bytes", "x", [2_600_000, 3], 413, "at most 131072 elements of BYTES, got 7800000"),
        ("same_bytes", "x", [1, 3], 400, "expected 3 elements, but .* bytes follow"),
    ],
)
def test_strings_are_not_split_beyond_what_the_shape_and_the_limit_say(
    controlled: ServerProcess, model: str, name: str, shape: list[int], status: int, message: str
) -> None:
    zeros = bytes(31_200_000)
    assert_refused(controlled.infer_binary(model, name, "BYTES", shape, zeros), status, message)


@pytest.mark.parametrize(
    ("array", "message"),
    [(ONE * np.nan, "expected finite numbers, got NaN or infinity"), (ONE[:0], "at least one row")],
)
def test_a_manifest_can_ask_for_rows_of_finite_numbers(
    controlled: ServerProcess, array: Any, message: str
) -> None:
    answer = controlled.infer_binary("finite", "image", "FP32", array.shape, array.tobytes())
    assert_refused(answer, 400, message)


def test_pages_in_browsers_load_and_unload_nothing(controlled: ServerProcess) -> None:
    for change in ("load", "unload"):
        path = f"/v2/repository/models/same_bytes/{change}"
        refused = controlled.call("POST", path, b"", Origin="http://example.org", Content_Type="text/plain")
        assert_refused(refused, 403, "browsers")
    assert controlled.call("GET", "/v2/models/same_bytes/ready").status == 200
    load = "/v2/repository/models/same_bytes/load"
    refused = controlled.call("POST", load, {"parameters": []})
    assert (refused.status, refused.error) == (400, "request: expected an object of parameters, got []")
    assert controlled.call("POST", load, {"parameters": None}).status == 200
