"""The command line: model_servers/main.cc, server.cc, serving_config, tensorflow_model_server_test.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.server.tfs.flags import UNIMPLEMENTED

from ..processes import ServerProcess, assert_matches, assert_refused, running_tfs
from .clients import Grpc, code_and_details, eventually, floats, predict, predict_request, value
from .saved_models import model_config

BODY = {"instances": [2.0]}
BATCHING = "max_batch_size { value: 128 } max_enqueued_batches { value: 1000 } allowed_batch_sizes: 128"


@pytest.fixture(scope="module")
def flagged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of `shapes` under the name `default`, with most of the flags."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "batching").write_text(BATCHING)
    (folder / "monitoring").write_text('prometheus_config { enable: true path: "/own/metrics(1)+" }')
    flags = (
        f"--model_base_path={models}/shapes",
        f"--grpc_socket_path={folder}/grpc",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=600000,grpc.max_receive_message_length=100000",
        "--max_body_bytes=1048576",
        "--rest_api_timeout_in_ms=500",
        "--rest_api_enable_cors_support",
        "--enable_batching=true",
        f"--batching_parameters_file={folder}/batching",
        f"--monitoring_config_file={folder}/monitoring",
        "--tensorflow_session_parallelism=2",
        *(f"--{name}=1" for name in UNIMPLEMENTED),
    )
    with running_tfs(folder, *flags) as server:
        yield server


def test_flags_that_do_nothing_are_named_in_the_log(flagged: ServerProcess) -> None:
    """main.cc's list, each in a line of its own."""
    for name in UNIMPLEMENTED:
        assert flagged.log.count(f"--{name} is accepted, but does nothing") == 1


def test_grpc_on_a_socket_and_with_its_own_arguments(flagged: ServerProcess, tmp_path: Path) -> None:
    """main.cc, --grpc_socket_path, --grpc_channel_arguments."""
    request = predict_request("default", "two_out", x=floats([1, 2]))
    (socket,) = [word for word in flagged.log.split() if word.startswith("unix:")]
    for address in (flagged.grpc, socket):
        with Grpc(address) as client:
            assert list(client.predict(request).outputs["half"].float_val) == [0.5, 1]
            large = predict_request("default", "two_out", x=floats([1] * 100_000))
            assert code_and_details(client.predict, large)[0] == "RESOURCE_EXHAUSTED"


def test_requests_beyond_the_limits(flagged: ServerProcess) -> None:
    """Tandem's own --max_body_bytes: one value may stand for a whole tensor, but not for gigabytes."""
    assert_refused(predict(flagged, "default", b" " * 20_000_000), 413, "at most 1048576 bytes")
    bomb = predict_request("default", "two_out", x=floats([1]))
    bomb.inputs["x"].tensor_shape.dim[0].size = 10**6
    bomb.inputs["x"].ClearField("tensor_content")
    bomb.inputs["x"].float_val[:] = [1]
    with Grpc(flagged.grpc) as client:
        code, details = code_and_details(client.predict, bomb)
    assert code == "RESOURCE_EXHAUSTED"
    assert_matches("'x': expected at most 1048576 bytes, got 1 values for 4000000 bytes", details)


def test_pages_of_other_origins(flagged: ServerProcess) -> None:
    """main.cc, --rest_api_enable_cors_support; http_rest_api_util.cc, AddCORSHeaders."""
    path, body = "/v1/models/default:predict", {"signature_name": "scalar", "inputs": 1.0}
    origin = {"Origin": "http://page.example"}
    answer = flagged.call("POST", path, body, **origin)
    preflight = flagged.call("OPTIONS", path, Access_Control_Request_Method="POST", **origin)
    for one in (answer, preflight, flagged.call("GET", "/v1/models/none")):
        assert one.headers["Access-Control-Allow-Origin"] == "*"
    assert (answer.status, preflight.status) == (200, 200)
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"]


def test_the_time_of_a_rest_call(flagged: ServerProcess) -> None:
    """main.cc, --rest_api_timeout_in_ms; http_server.cc: DEADLINE_EXCEEDED is 504. The next call is answered."""
    answer = predict(flagged, "default", {"signature_name": "slow", "instances": [3000]})
    assert answer.status == 504, answer.body
    assert "0.5 s" in answer.error
    scalar = {"signature_name": "scalar", "inputs": 1.0}
    eventually(lambda: predict(flagged, "default", scalar).status == 200)


def test_monitoring_has_a_path_of_its_own(flagged: ServerProcess) -> None:
    """http_server.cc: prometheus_config.path."""
    assert flagged.call("GET", "/monitoring/prometheus/metrics").status == 404
    assert flagged.call("GET", "/own/metrics(1)+").status == 200


def test_a_config_file_with_labels_and_tflite_is_read_again(models: Path, tmp_path: Path) -> None:
    """serving_config, --model_config_file_poll_wait_seconds: models come and go.

    main.cc, --allow_version_labels_for_unavailable_models; --prefer_tflite_model: model.tflite of the version's
    folder, or the SavedModel where there is none.
    """
    import tensorflow as tf

    export = tmp_path / "both" / "1"
    shutil.copytree(models / "half_plus" / "1", export)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(models / "half_plus" / "3"))
    (export / "model.tflite").write_bytes(converter.convert())
    labels = 'version_labels { key: "stable" value: 3 }'
    one, both = f"{models}/half_plus {labels}", str(export.parent)
    config = tmp_path / "models.config"
    config.write_text(model_config(one=one, both=both))
    flags = (
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=0.2",
        "--allow_version_labels_for_unavailable_models=true",
        "--prefer_tflite_model=true",
    )
    with running_tfs(tmp_path, *flags, models=("one", "both")) as server:
        assert value(server, "one", BODY, "/labels/stable") == [4.0]
        assert value(server, "both", BODY) == [4.0]
        metadata = server.call("GET", "/v1/models/both/metadata").json()["metadata"]["signature_def"]
        assert metadata["signature_def"]["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
        assert server.call("GET", "/monitoring/prometheus/metrics").status == 404
        policy = "model_version_policy { specific { versions: 1 } }"
        config.write_text(model_config(one=one, two=f"{models}/half_plus {policy}"))
        server.wait_for("/v1/models/two", "AVAILABLE")
        assert value(server, "two", BODY) == [2.0]
        assert predict(server, "both", BODY).status == 404
