"""NVIDIA's client, unpatched, in all its four forms: what it has that applies to this server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from .artifacts import images, logits, write_identity, write_onnx
from .processes import ServerProcess, assert_matches, tandem_server

DTYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
ONNX = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING", "BF16": "BFLOAT16"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fashion` in version 1, and for each datatype a model that gives back what it gets."""
    root = tmp_path_factory.mktemp("repository")
    write_onnx(root / "fashion", 1)
    for datatype in (*DTYPES, "BF16"):
        write_identity(root / f"same_{datatype.lower()}", ONNX.get(datatype, datatype))
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves `repository`; what a test changes it puts back."""
    flags = ("--repository-control", "--batching")
    server = tandem_server("onnxruntime", repository, tmp_path_factory.mktemp("log") / "log", *flags)
    server.wait_for("/v2/health/ready")
    yield server
    assert server.stop() == 0


@pytest.fixture(params=["http", "grpc"])
def module(request: pytest.FixtureRequest) -> Any:
    return triton_http if request.param == "http" else triton_grpc


@pytest.fixture
def client(server: ServerProcess, module: Any) -> Iterator[Any]:
    client = module.InferenceServerClient(server.http if module is triton_http else server.grpc)
    yield client
    client.close()


def picture(module: Any, count: int = 1) -> Any:
    batch = images(count)
    given = module.InferInput("image", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch)
    return given


def plain(client: Any, answer: Any) -> Any:
    """An answer of either client as a dict or a list."""
    if isinstance(answer, dict | list):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fashion", "1")
    assert not client.is_model_ready("fashion", "2")
    assert not client.is_model_ready("nope")
    server = plain(client, client.get_server_metadata())
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
    model = plain(client, client.get_model_metadata("fashion", "1"))
    assert (model["versions"], model["inputs"][0]["datatype"]) == (["1"], "FP32")


def test_the_configuration_leaves_the_batch_out(client: Any) -> None:
    answer = plain(client, client.get_model_config("fashion"))
    config = answer.get("config", answer)
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("fashion", "onnxruntime", 1024)
    given = config["input"][0]
    assert (given["data_type"], [int(n) for n in given["dims"]]) == ("TYPE_FP32", [28, 28, 1])


def test_statistics_name_each_version(client: Any, module: Any) -> None:
    client.infer("fashion", [picture(module)])
    for answer in (client.get_inference_statistics("fashion", "1"), client.get_inference_statistics()):
        found = {each["name"]: each for each in plain(client, answer)["model_stats"]}
        assert found["fashion"]["version"] == "1"
        assert set(found["fashion"]["inference_stats"]["success"]) == {"count", "ns"}
    assert len(found) == len(DTYPES) + 2
    with pytest.raises(InferenceServerException, match="'nope' is not served"):
        client.get_inference_statistics("nope")


def test_a_model_is_unloaded_until_it_is_loaded_again(
    server: ServerProcess, client: Any, module: Any
) -> None:
    def index() -> dict[str, tuple[str, str, str]]:
        entries = plain(client, client.get_model_repository_index())
        models = entries if isinstance(entries, list) else entries["models"]
        return {each["name"]: (each["version"], each["state"], each["reason"]) for each in models}

    assert index()["fashion"] == ("1", "READY", "")
    client.unload_model("fashion")
    client.unload_model("fashion")
    assert index()["fashion"] == ("1", "UNAVAILABLE", "unloaded on request")
    time.sleep(0.5)  # several polls, which must not bring it back
    assert not client.is_model_ready("fashion")
    assert client.is_server_ready()
    with pytest.raises(InferenceServerException, match="was unloaded on request"):
        client.infer("fashion", [picture(module)])
    client.load_model("fashion")
    assert client.is_model_ready("fashion")
    assert client.infer("fashion", [picture(module)]).as_numpy("logits").shape == (1, 10)
    client.load_model("fashion")
    for change in (client.load_model, client.unload_model):
        with pytest.raises(
            InferenceServerException, match="holds no model 'nope'; it holds: fashion, same_bf16"
        ):
            change("nope")


def test_a_client_can_bring_neither_configuration_nor_files(client: Any) -> None:
    for parameters in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"x"}}):
        with pytest.raises(InferenceServerException, match="repository only"):
            client.load_model("fashion", **parameters)
    assert client.is_model_ready("fashion")


def test_what_cannot_be_loaded_is_answered_with_its_reason(
    server: ServerProcess, repository: Path, client: Any, module: Any
) -> None:
    broken = repository / "broken" / "1"
    broken.mkdir(parents=True)
    try:
        (broken / "model.onnx").write_bytes(b"no model")
        with pytest.raises(InferenceServerException, match=r"'broken' is not loaded: .*cannot load"):
            client.load_model("broken")
        assert client.infer("fashion", [picture(module)]).as_numpy("logits").shape == (1, 10)
    finally:
        (broken / "model.onnx").unlink()
        broken.rmdir()
        broken.parent.rmdir()
    server.wait_for("/v2/health/ready")


def test_infer_keeps_id_order_and_parameters(client: Any, module: Any) -> None:
    wanted = [module.InferRequestedOutput(name) for name in ("probabilities", "logits")]
    answer = client.infer(
        "fashion",
        [picture(module, 3)],
        model_version="1",
        outputs=wanted,
        request_id="größe-7",
        priority=3,
        timeout=60_000_000,
        parameters={"mine": "x", "count": 3, "yes": True},
        sequence_id=5,
    )
    np.testing.assert_allclose(answer.as_numpy("logits"), logits(images(3)), atol=1e-5)
    response = plain(client, answer.get_response())
    assert response["id"] == "größe-7"
    assert [output["name"] for output in response["outputs"]] == ["probabilities", "logits"]


def test_a_timeout_that_has_passed_is_said(client: Any, module: Any) -> None:
    with pytest.raises(InferenceServerException, match="1e-06 s") as failure:
        client.infer("fashion", [picture(module, 64)], timeout=1)
    assert_matches("504|DEADLINE_EXCEEDED", str(failure.value.status()))
    assert client.infer("fashion", [picture(module)], timeout=0).as_numpy("logits").shape == (1, 10)


def test_classification_and_shared_memory_are_refused(client: Any, module: Any) -> None:
    with pytest.raises(InferenceServerException, match="does not offer the classification extension"):
        client.infer(
            "fashion", [picture(module)], outputs=[module.InferRequestedOutput("logits", class_count=3)]
        )
    given = picture(module)
    given.set_shared_memory("region", 3136)
    with pytest.raises(InferenceServerException, match="does not offer shared memory"):
        client.infer("fashion", [given])


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_comes_back_as_it_went(client: Any, module: Any, datatype: str) -> None:
    values: list[Any] = [[0, 1, 1], [1, 0, 1]]
    if datatype in ("INT64", "UINT64"):
        values[0] = [np.iinfo(DTYPES[datatype]).max, 2**53 + 1, np.iinfo(DTYPES[datatype]).min]
    if datatype == "BYTES":
        values = [[b"", "größe".encode(), b"x" * 3000], [b"a", b"b", b"0"]]
    array = np.array(values, DTYPES[datatype])
    forms: list[dict[str, bool]] = [{}] if module is triton_grpc else [{"binary_data": True}]
    if module is triton_http and datatype != "FP16":  # which the client sends as binary only
        forms.append({"binary_data": False})
    for form in forms:
        given = module.InferInput("x", [2, 3], datatype)
        given.set_data_from_numpy(array, **form)
        wanted = module.InferRequestedOutput("y", **form)
        answer = client.infer(f"same_{datatype.lower()}", [given], outputs=[wanted]).as_numpy("y").tolist()
        if form == {"binary_data": False} and datatype == "BYTES":
            answer = [[text.encode() for text in row] for row in answer]
        assert answer == array.tolist()


def test_bytes_that_are_no_text_are_refused_where_onnx_has_text(client: Any, module: Any) -> None:
    given = module.InferInput("x", [1, 3], "BYTES")
    given.set_data_from_numpy(np.array([[b"a", b"\xff", b""]], object))
    with pytest.raises(InferenceServerException, match="input 'x': expected text in UTF-8"):
        client.infer("same_bytes", [given])


def test_bfloat16_comes_back_as_it_went(client: Any, module: Any) -> None:
    array = np.array([[0.5, -2, 1e30], [1, 2, 3]], "bfloat16")
    given = module.InferInput("x", [2, 3], "BF16")
    given.set_data_from_numpy(array)
    answer = client.infer("same_bf16", [given]).as_numpy("y")
    assert answer.tolist() == array.tolist()
    assert plain(client, client.get_model_metadata("same_bf16"))["inputs"][0]["datatype"] == "BF16"


def test_async_infer_answers_every_request(client: Any, module: Any) -> None:
    if module is triton_http:
        pending = [client.async_infer("fashion", [picture(module, count)]) for count in (1, 2, 3)]
        answers = [each.get_result() for each in pending]
    else:
        done: Queue[Any] = Queue()
        for count in (1, 2, 3):
            client.async_infer(
                "fashion", [picture(module, count)], lambda result, error: done.put((result, error))
            )
        answers = [done.get(timeout=20)[0] for _ in range(3)]
    assert sorted(len(answer.as_numpy("logits")) for answer in answers) == [1, 2, 3]


def test_a_stream_goes_on_after_an_error(server: ServerProcess) -> None:
    client = triton_grpc.InferenceServerClient(server.grpc)
    done: Queue[Any] = Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for model in ("fashion", "nope", "fashion"):
        client.async_stream_infer(model, [picture(triton_grpc, 2)], request_id=model)
    answers = [done.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    client.close()
    assert [error is None for _, error in answers] == [True, False, True]
    assert_matches("'nope' is not served", str(answers[1][1]))
    np.testing.assert_allclose(answers[2][0].as_numpy("logits"), logits(images(2)), atol=1e-5)


@pytest.mark.parametrize("module", [triton_http_aio, triton_grpc_aio], ids=["http", "grpc"])
async def test_the_asyncio_clients_work(server: ServerProcess, module: Any) -> None:
    address = server.http if module is triton_http_aio else server.grpc
    async with module.InferenceServerClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("fashion")
        assert await client.get_server_metadata()
        assert await client.get_model_metadata("fashion")
        assert await client.get_model_config("fashion")
        assert await client.get_inference_statistics("fashion")
        assert await client.get_model_repository_index()
        await client.unload_model("same_fp32")
        assert not await client.is_model_ready("same_fp32")
        await client.load_model("same_fp32")
        answer = await client.infer("fashion", [picture(module, 2)], request_id="a")
        np.testing.assert_allclose(answer.as_numpy("logits"), logits(images(2)), atol=1e-5)


def test_a_server_without_models_is_alive_but_not_ready(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    try:
        server.wait_for("/v2/health/live")
        answer = server.call("GET", "/v2/health/ready")
        assert answer.status == 503
        assert_matches("no model", answer.error)
        with triton_http.InferenceServerClient(server.http) as client:
            assert not client.is_server_ready()
        with triton_grpc.InferenceServerClient(server.grpc) as over_grpc:
            assert over_grpc.is_server_live()
            assert not over_grpc.is_server_ready()
    finally:
        assert server.stop() == 0
