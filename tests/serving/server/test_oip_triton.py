"""NVIDIA's client, unpatched, in all its four forms: what it has that applies to this server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf.json_format import MessageToDict
from tritonclient.utils import InferenceServerException

from serving.server.oip import codec

from .artifacts import IDENTITIES, images, logits
from .processes import ServerProcess, assert_matches

DTYPES = {name: codec.DTYPES[name] if name != "BYTES" else "object" for name in IDENTITIES}


@pytest.fixture(params=[triton_http, triton_grpc], ids=["http", "grpc"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(controlled: ServerProcess, module: Any) -> Iterator[Any]:
    with module.InferenceServerClient(
        controlled.http if module is triton_http else controlled.grpc
    ) as client:
        yield client


def given(module: Any, array: Any, name: str = "image", datatype: str = "FP32", **form: bool) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **form)
    return tensor


def picture(module: Any, count: int = 1) -> Any:
    return given(module, images(count))


def plain(answer: Any) -> Any:
    """An answer of either client as a dict or a list."""
    if isinstance(answer, dict | list):
        return answer
    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def test_health_metadata_and_configuration(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fashion", "1")
    assert not client.is_model_ready("fashion", "2")
    assert not client.is_model_ready("nope")
    server = plain(client.get_server_metadata())
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
    model = plain(client.get_model_metadata("fashion", "1"))
    assert (model["versions"], model["inputs"][0]["datatype"]) == (["1"], "FP32")
    answer = plain(client.get_model_config("fashion"))
    config = answer.get("config", answer)
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("fashion", "onnxruntime", 1024)
    image = config["input"][0]
    assert (image["data_type"], [int(n) for n in image["dims"]]) == ("TYPE_FP32", [28, 28, 1])


def test_statistics_are_counted_by_request_run_and_row(client: Any, module: Any) -> None:
    def counted() -> tuple[int, ...]:
        answers = (client.get_inference_statistics("fashion", "1"), client.get_inference_statistics())
        one, every = ({each["name"]: each for each in plain(answer)["model_stats"]} for answer in answers)
        assert len(every) == len(DTYPES) + 2
        found = one["fashion"]
        assert found["version"] == "1"
        assert int(found["last_inference"]) > 0
        ended, runs = found["inference_stats"], {int(run["batch_size"]): run for run in found["batch_stats"]}
        durations = [*(ended[kind] for kind in ("success", "fail", "queue")), runs[3]["compute_infer"]]
        assert all(int(duration["ns"]) > 0 for duration in durations)
        rows, executions = int(found["inference_count"]), int(found["execution_count"])
        return rows, executions, *(int(duration["count"]) for duration in durations)

    def ask() -> None:
        client.infer("fashion", [picture(module, 3)])
        with pytest.raises(InferenceServerException):
            client.infer("fashion", [picture(module)], outputs=[module.InferRequestedOutput("none")])

    ask()
    before = counted()
    ask()
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [3, 1, 1, 1, 1, 1]
    with pytest.raises(InferenceServerException, match="'nope' is not served"):
        client.get_inference_statistics("nope")


def test_a_model_is_unloaded_until_it_is_loaded_again(client: Any, module: Any) -> None:
    def index() -> tuple[str, str, str]:
        entries = plain(client.get_model_repository_index())
        models = entries if isinstance(entries, list) else entries["models"]
        found = next(entry for entry in models if entry["name"] == "fashion")
        return found["version"], found["state"], found["reason"]

    assert index() == ("1", "READY", "")
    client.unload_model("fashion")
    client.unload_model("fashion")
    assert index() == ("1", "UNAVAILABLE", "unloaded on request")
    time.sleep(0.5)  # several polls, which must not bring it back
    assert not client.is_model_ready("fashion")
    assert client.is_server_ready()
    with pytest.raises(InferenceServerException, match="was unloaded on request"):
        client.infer("fashion", [picture(module)])
    client.load_model("fashion")
    client.load_model("fashion")
    assert client.infer("fashion", [picture(module)]).as_numpy("logits").shape == (1, 10)
    for change in (client.load_model, client.unload_model):
        with pytest.raises(
            InferenceServerException, match="holds no model 'nope'; it holds: fashion, finite, same_"
        ):
            change("nope")


def test_what_cannot_be_loaded_is_answered_with_its_reason(
    controlled: ServerProcess, repository: Path, client: Any, module: Any
) -> None:
    for parameters in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"x"}}):
        with pytest.raises(InferenceServerException, match="repository only"):
            client.load_model("fashion", **parameters)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    try:
        with pytest.raises(InferenceServerException, match=r"'broken' is not loaded: .*cannot load"):
            client.load_model("broken")
        assert client.infer("fashion", [picture(module)]).as_numpy("logits").shape == (1, 10)
    finally:
        shutil.rmtree(repository / "broken")
    controlled.wait_for("/v2/health/ready")


def test_infer_keeps_id_and_order_and_takes_every_parameter(client: Any, module: Any) -> None:
    answer = client.infer(
        "fashion",
        [picture(module, 3)],
        model_version="1",
        outputs=[module.InferRequestedOutput(name) for name in ("probabilities", "logits")],
        request_id="größe-7",
        priority=3,
        timeout=60_000_000,
        parameters={"mine": "x", "count": 3, "yes": True},
        sequence_id=5,
    )
    np.testing.assert_allclose(answer.as_numpy("logits"), logits(images(3)), atol=1e-5)
    response = plain(answer.get_response())
    assert response["id"] == "größe-7"
    assert [output["name"] for output in response["outputs"]] == ["probabilities", "logits"]


def test_a_timeout_that_has_passed_is_said(client: Any, module: Any) -> None:
    with pytest.raises(InferenceServerException, match="1e-06 s") as failure:
        client.infer("fashion", [picture(module, 64)], timeout=1)
    assert_matches("504|DEADLINE_EXCEEDED", str(failure.value.status()))
    assert client.infer("fashion", [picture(module)], timeout=0).as_numpy("logits").shape == (1, 10)


def test_classification_and_shared_memory_are_refused(client: Any, module: Any) -> None:
    classes = module.InferRequestedOutput("logits", class_count=3)
    with pytest.raises(InferenceServerException, match="does not offer the classification extension"):
        client.infer("fashion", [picture(module)], outputs=[classes])
    shared = picture(module)
    shared.set_shared_memory("region", 3136)
    with pytest.raises(InferenceServerException, match="does not offer shared memory"):
        client.infer("fashion", [shared])


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
        sent = given(module, array, "x", datatype, **form)
        wanted = module.InferRequestedOutput("y", **form)
        answer = client.infer(f"same_{datatype.lower()}", [sent], outputs=[wanted]).as_numpy("y").tolist()
        if form == {"binary_data": False} and datatype == "BYTES":
            answer = [[text.encode() for text in row] for row in answer]
        assert answer == array.tolist()


def test_a_stream_goes_on_after_an_error(controlled: ServerProcess) -> None:
    done: Queue[Any] = Queue()
    with triton_grpc.InferenceServerClient(controlled.grpc) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for model in ("fashion", "nope", "fashion"):
            client.async_stream_infer(model, [picture(triton_grpc, 2)], request_id=model)
        answers = [done.get(timeout=20) for _ in range(3)]
    assert [error is None for _, error in answers] == [True, False, True]
    assert_matches("'nope' is not served", str(answers[1][1]))
    np.testing.assert_allclose(answers[2][0].as_numpy("logits"), logits(images(2)), atol=1e-5)
