"""SavedModels of every kind, and what a version brings along, as TensorFlow Serving's clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from .artifacts import NUMBERS, write_half_plus_two, write_saved_models, write_tflite, write_zoo
from .processes import ServerProcess, assert_matches, tandem_tf_serving
from .test_tfs_grpc import Client, array
from .warm_up_records import examples, predict_log, write_warm_up

pytestmark = pytest.mark.slow

CONFIG = """model_config_list {{
  config {{
    name: "zoo" base_path: "{root}/zoo" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: [1, 2] }} }}
    version_labels {{ key: "stable" value: {stable} }}
    version_labels {{ key: "canary" value: 2 }}
  }}
  config {{ name: "one" base_path: "{root}/one" model_platform: "tensorflow" }}
  config {{ name: "lite" base_path: "{root}/lite" model_platform: "tensorflow" }}
}}
"""
WARM_UPS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`zoo` in versions 1 and 2, of which 2 warms up; TF1's half_plus_two as `one`; a .tflite as `lite`."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    root = tmp_path_factory.mktemp("saved_models")
    write_zoo(root / "zoo" / "1")
    write_zoo(root / "zoo" / "2")
    write_warm_up(root / "zoo" / "2", *[predict_log("", x=np.zeros(1, np.float32))] * WARM_UPS)
    write_half_plus_two(root / "one" / "00000123")
    classify, regress, several = PredictionLog(), PredictionLog(), PredictionLog()
    for log, request in ((classify, classify.classify_log.request), (regress, regress.regress_log.request)):
        request.input.CopyFrom(examples(x=1.0))
        request.model_spec.signature_name = "classify_x_to_y" if log is classify else "regress_x_to_y"
    request = several.multi_inference_log.request
    request.input.CopyFrom(examples(x=1.0))
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "one", "regress_x_to_y2"
    write_warm_up(root / "one" / "00000123", classify, regress, several)
    write_saved_models(root / "plain")
    write_tflite(root / "lite", root / "plain" / "half_plus_two" / "1")
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[ServerProcess]:
    config = root / "models.config"
    config.write_text(CONFIG.format(root=root, stable=1))
    server = tandem_tf_serving(
        root / "log",
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        "--prefer_tflite_model=true",
        "--num_request_iterations_for_warmup=2",
        f"--grpc_socket_path={root / 'grpc'}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=600000,grpc.lb_policy_name=grpclb",
        "--max_body_bytes=1048576",
    )
    for name in ("zoo", "one", "lite"):
        server.wait_for(f"/v1/models/{name}", "AVAILABLE")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(served: ServerProcess) -> Iterator[Client]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield Client(channel)


def rest(server: ServerProcess, path: str, document: dict[str, Any]) -> Any:
    answer = server.call("POST", f"/v1/models/{path}", document)
    assert answer.status == 200, answer.body
    return answer.json()


def test_every_dtype_goes_through_both_protocols(served: ServerProcess, client: Client) -> None:
    values: dict[str, Any] = {
        f"of_{name}": [True, False] if name == "bool" else [1, 0] if "int" in name else [1.5, -0.25]
        for name in NUMBERS
    }
    rows = [{name: column[row] for name, column in values.items()} for row in range(2)]
    answer = rest(served, "zoo:predict", {"signature_name": "numbers", "instances": rows})
    assert answer == {"predictions": rows}
    arrays: dict[str, Any] = {
        name: np.array(column, name.removeprefix("of_")) for name, column in values.items()
    }
    back = client.predict("zoo", "numbers", **arrays)
    for name, given in arrays.items():
        assert array(back, name).dtype == given.dtype
        assert array(back, name).tolist() == given.tolist()
        assert not back.outputs[name].tensor_content  # as the original answers unless told otherwise


def test_strings_scalars_and_inputs_left_out(served: ServerProcess, client: Client) -> None:
    given = {"signature_name": "strings", "inputs": {"text": ["häuser", {"b64": "/w=="}]}}
    assert rest(served, "zoo:predict", given) == {
        "outputs": {"text": ["häuser", "�"], "text_bytes": [{"b64": "aMOkdXNlcg=="}, {"b64": "/w=="}]}
    }
    assert array(client.predict("zoo", "strings", text=[b"\xff"]), "text").tolist() == [b"\xff"]
    assert rest(served, "zoo:predict", {"signature_name": "total", "inputs": [1, 2]}) == {"outputs": 3.0}
    scaled = {"signature_name": "scaled", "inputs": {"x": [1, 2]}}
    assert rest(served, "zoo:predict", scaled) == {"outputs": [10.0, 20.0]}
    assert rest(served, "zoo:predict", {"signature_name": "scaled", "instances": [{"x": 1}, {"x": 2}]}) == {
        "predictions": [10.0, 20.0]
    }
    ones = np.ones(2, np.float32)
    assert array(client.predict("zoo", "scaled", x=ones, by=np.float32(3)), "y").tolist() == [3.0, 3.0]


def test_one_value_may_stand_for_all_within_the_limit(client: Client) -> None:
    from tensorflow import make_tensor_proto

    x = make_tensor_proto(np.float32(2), shape=[1000])
    assert len(x.float_val) == 1
    assert array(client.predict("zoo", "total", x=x), "sum") == 2000.0
    x.tensor_shape.dim[0].size = 2**40
    with pytest.raises(grpc.RpcError) as failure:
        client.predict("zoo", "total", x=x)
    call: Any = failure.value
    assert call.code().name == "RESOURCE_EXHAUSTED"


def test_a_model_of_tensorflow_1_answers_by_all_its_signatures(served: ServerProcess, client: Client) -> None:
    # Its x is declared as [-1, 1], and the original answers this all the same.
    assert rest(served, "one:predict", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}
    classify = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {}]}
    assert rest(served, "one:classify", classify) == {"results": [[["", 3.0]], [["", 2.0]]]}
    regress = {"signature_name": "regress_x_to_y2", "context": {"x": 2.0}, "examples": [{}, {"x": [4.0]}]}
    assert rest(served, "one:regress", regress) == {"results": [4.0, 5.0]}
    metadata = served.call("GET", "/v1/models/one/metadata").json()
    assert metadata["model_spec"] == {"name": "one", "signature_name": "", "version": "123"}
    definition = metadata["metadata"]["signature_def"]["signature_def"]["regress_x2_to_y3"]
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert definition == {
        "inputs": {"inputs": {"name": "x2:0", "dtype": "DT_FLOAT", "tensor_shape": shape}},
        "outputs": {"outputs": {"name": "y3:0", "dtype": "DT_FLOAT", "tensor_shape": shape}},
        "method_name": "tensorflow/serving/regress",
        "defaults": {},
    }


@pytest.mark.parametrize(
    ("method", "document", "message"),
    [
        ("classify", {"examples": [{"x": 1.0}]}, "No classification inputs found"),
        (
            "classify",
            {"signature_name": "nope", "examples": [{}]},
            "No signature was found with the name: nope",
        ),
        ("regress", {"signature_name": "classify_x_to_y", "examples": [{}]}, "No regression outputs found"),
        ("regress", {"signature_name": "regress_x2_to_y3", "examples": [{}]}, "expected dtype float32"),
        (
            "regress",
            {"signature_name": "regress_x_to_y", "examples": [{"x": "text"}]},
            "refused its input: .*x",
        ),
        ("regress", {"examples": [{"x": [1, 2.0]}]}, "Unexpected element type in feature: x"),
        ("regress", {"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type"),
        ("regress", {"examples": [{"x": 2**63}]}, "Only int64 is supported"),
        ("regress", {"examples": [{"x": {"b64": "?"}}]}, "base64"),
        ("regress", {"examples": [1]}, "Example must be JSON object"),
        ("regress", {"examples": []}, "empty array"),
        ("regress", {"examples": {}}, "list/array"),
        ("regress", {}, "key 'examples' is expected"),
    ],
)
def test_bad_examples_are_refused(
    served: ServerProcess, method: str, document: dict[str, Any], message: str
) -> None:
    answer = served.call("POST", f"/v1/models/one:{method}", document)
    assert answer.status == 400, answer.body
    assert_matches(message, answer.error)


def test_warm_up_runs_before_the_first_request_and_nothing_else_does(
    served: ServerProcess, client: Client
) -> None:
    zero = np.zeros(1, np.float32)
    assert array(client.predict("zoo", x=zero, version=1), "runs").tolist() == [1]
    assert array(client.predict("zoo", x=zero, version=2), "runs").tolist() == [WARM_UPS * 2 + 1]
    assert "00000123: warmed up by 3 requests of its own" in served.log


def test_labels_name_versions_and_move(served: ServerProcess, client: Client, root: Path) -> None:
    from google.protobuf import text_format
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

    def number(label: str) -> str:
        metadata = served.call("GET", f"/v1/models/zoo/labels/{label}/metadata").json()
        return str(metadata["model_spec"]["version"])

    def reload(stable: int) -> None:
        request = ReloadConfigRequest()
        text_format.Parse(CONFIG.format(root=root, stable=stable), request.config)
        client.models.HandleReloadConfigRequest(request, timeout=60)

    total = {"signature_name": "total", "inputs": [1, 2]}
    assert rest(served, "zoo/labels/canary:predict", total) == {"outputs": 3.0}
    assert (number("stable"), number("canary")) == ("1", "2")
    reload(2)
    assert number("stable") == "2"
    with pytest.raises(grpc.RpcError) as failure:
        reload(7)
    call: Any = failure.value
    assert call.code().name == "FAILED_PRECONDITION"
    assert_matches("assign label to version 7 of model zoo, which is not currently available", call.details())
    assert number("stable") == "2"
    reload(1)
    assert number("stable") == "1"


def test_a_tflite_model_is_preferred_where_there_is_one(served: ServerProcess) -> None:
    assert rest(served, "lite:predict", {"instances": [1.0, 2.0]}) == {"predictions": [2.5, 3.0]}
    metadata = served.call("GET", "/v1/models/lite/metadata").json()
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_grpc_answers_on_a_unix_socket_too(served: ServerProcess, root: Path) -> None:
    with grpc.insecure_channel(f"unix:{root / 'grpc'}") as channel:
        assert array(Client(channel).predict("one", x=np.array([2], np.float32)), "y").tolist() == [3.0]
