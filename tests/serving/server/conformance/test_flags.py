"""The command line: model_servers/main.cc, server.cc, serving_config, tensorflow_model_server_test.py."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ..processes import ServerProcess
from .clients import Grpc, eventually, floats, predict, predict_request, value
from .conftest import Start
from .saved_models import model_config

BODY = {"instances": [2.0]}


def ended(server: ServerProcess) -> tuple[int, str]:
    """The exit code of a process that is to end by itself, and what it printed."""
    return server.process.wait(30), server.log


def test_version(start: Start) -> None:
    """main.cc: two lines and exit code 0."""
    code, output = ended(start("--version"))
    assert code == 0
    assert re.search(r"^TensorFlow ModelServer: \S+", output, re.MULTILINE)
    assert re.search(r"^TensorFlow Library: \S+", output, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--model_name=half_plus"],
        ["{good}", "--rest_api_timeout_in_ms=soon"],
        ["{good}", "--port=0", "--rest_api_port=0"],
        ["{good}", "--enable_batching=perhaps"],
        ["--model_config_file={folder}/wrong"],
        ["--model_config_file={folder}/missing"],
        ["--model_config_file={folder}/twice"],
        ["{good}", "--monitoring_config_file={folder}/wrong"],
        ["{good}", "--enable_batching", "--batching_parameters_file={folder}/wrong"],
        ["{good}", "--batching_parameters_file={folder}/batching"],
    ],
    ids=" ".join,
)
def test_flags_that_are_refused(start: Start, models: Path, tmp_path: Path, flags: list[str]) -> None:
    """main.cc, server.cc: what is no value, no model at all, files that are none: an error and not exit code 0."""
    (tmp_path / "wrong").write_text("this is no protobuf")
    entry = f'config {{ name: "a" base_path: "{models}/half_plus" model_platform: "tensorflow" }}'
    (tmp_path / "twice").write_text(f"model_config_list {{ {entry} {entry} }}")
    (tmp_path / "batching").write_text("max_batch_size { value: 8 }")
    good = f"--model_base_path={models}/half_plus"
    code, output = ended(start(*(flag.format(good=good, folder=tmp_path) for flag in flags)))
    assert code != 0
    assert output


def test_a_config_file_that_is_none(start: Start, tmp_path: Path) -> None:
    """tensorflow_model_server_test.py, testBadModelConfig: the message names the file."""
    wrong = tmp_path / "bad_model_config.txt"
    wrong.write_text("improperly formatted file")
    _, output = ended(start(f"--model_config_file={wrong}"))
    assert f"Invalid protobuf file: '{wrong}'" in output


def test_flags_that_nobody_knows(start: Start, models: Path) -> None:
    """Unlike the original, which prints the usage and starts without them: a misspelt flag must not go unnoticed."""
    code, output = ended(start(f"--model_base_path={models}/half_plus", "--no_such_flag=1"))
    assert code != 0
    assert "--no_such_flag=1" in output


@pytest.mark.slow
def test_every_flag_of_the_original_is_taken(start: Start, models: Path, tmp_path: Path) -> None:
    """main.cc's list; a socket for gRPC beside the port; the name is `default` without --model_name."""
    socket = tmp_path / "grpc.socket"
    server = start(
        f"--model_base_path={models}/half_plus",
        f"--grpc_socket_path={socket}",
        "--rest_api_num_threads=4",
        "--rest_api_timeout_in_ms=5000",
        "--rest_api_enable_cors_support=true",
        "--enable_batching=false",
        "--allow_version_labels_for_unavailable_models=true",
        "--model_config_file_poll_wait_seconds=0",
        "--num_load_threads=1",
        "--num_unload_threads=1",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000",
        "--file_system_poll_wait_seconds=1",
        "--flush_filesystem_caches=true",
        "--tensorflow_session_parallelism=2",
        "--tensorflow_intra_op_parallelism=0",
        "--tensorflow_inter_op_parallelism=0",
        "--per_process_gpu_memory_fraction=0.0",
        "--saved_model_tags=serve",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
        "--grpc_max_threads=8",
        "--enable_model_warmup=true",
        "--num_request_iterations_for_warmup=1",
        "--remove_unused_fields_from_bundle_metagraph=true",
        "--prefer_tflite_model=false",
        "--num_tflite_pools=1",
        "--num_tflite_interpreters_per_pool=1",
        "--enable_signature_method_name_check=false",
        "--xla_cpu_compilation_enabled=false",
        "--enable_profiler=true",
    )
    server.wait_for("/v1/models/default", "AVAILABLE")
    assert value(server, "default", BODY) == [4.0]
    for address in (server.grpc, f"unix:{socket}"):
        with Grpc(address) as client:
            answer = client.predict(predict_request("default", x=floats([2.0])))
            assert list(answer.outputs["y"].float_val) == [4.0]


@pytest.mark.slow
def test_pages_of_other_origins(start: Start, models: Path) -> None:
    """main.cc, --rest_api_enable_cors_support; http_rest_api_util.cc, AddCORSHeaders."""
    server = start(f"--model_base_path={models}/half_plus", "--rest_api_enable_cors_support=true")
    server.wait_for("/v1/models/default", "AVAILABLE")
    data = json.dumps(BODY).encode()
    answer = server.call("POST", "/v1/models/default:predict", data, Origin="http://page.example")
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    preflight = server.call(
        "OPTIONS",
        "/v1/models/default:predict",
        Origin="http://page.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type",
    )
    assert preflight.status == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"]


@pytest.mark.slow
def test_the_time_of_a_rest_call(start: Start, models: Path) -> None:
    """main.cc, --rest_api_timeout_in_ms; http_server.cc: DEADLINE_EXCEEDED is 504. The next call is answered."""
    server = start(
        f"--model_base_path={models}/shapes", "--model_name=shapes", "--rest_api_timeout_in_ms=500"
    )
    server.wait_for("/v1/models/shapes", "AVAILABLE")
    answer = predict(server, "shapes", {"signature_name": "slow", "instances": [3000]})
    assert answer.status == 504, answer.body
    assert answer.error
    scalar = {"signature_name": "scalar", "inputs": 1.0}
    eventually(lambda: predict(server, "shapes", scalar).status == 200)


@pytest.mark.slow
def test_without_monitoring_there_is_no_page(start: Start, models: Path, tmp_path: Path) -> None:
    """http_server.cc: none without prometheus_config.enable; its own path, or the default if that is empty."""
    off = tmp_path / "off.config"
    off.write_text("prometheus_config { enable: false }")
    own = tmp_path / "own.config"
    own.write_text('prometheus_config { enable: true path: "/own/metrics(1)+" }')
    unset = tmp_path / "unset.config"
    unset.write_text("prometheus_config { enable: true }")
    base = f"--model_base_path={models}/half_plus"
    default = "/monitoring/prometheus/metrics"
    servers = [
        start(base, *([f"--monitoring_config_file={file}"] if file else []))
        for file in (None, off, own, unset)
    ]
    for server in servers:
        server.wait_for("/v1/models/default", "AVAILABLE")
    assert [server.call("GET", default).status for server in servers] == [404, 404, 404, 200]
    assert servers[2].call("GET", "/own/metrics(1)+").status == 200


@pytest.mark.slow
def test_a_config_file_is_read_again(start: Start, models: Path, tmp_path: Path) -> None:
    """serving_config, --model_config_file_poll_wait_seconds: models come and go; garbage changes nothing."""
    config = tmp_path / "models.config"
    config.write_text(model_config(one=f"{models}/half_plus"))
    server = start(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1")
    server.wait_for("/v1/models/one", "AVAILABLE")
    policy = "model_version_policy { specific { versions: 1 } }"
    config.write_text(model_config(one=f"{models}/half_plus", two=f"{models}/half_plus {policy}"))
    server.wait_for("/v1/models/two", "AVAILABLE")
    assert value(server, "two", BODY) == [2.0]
    assert value(server, "one", BODY) == [4.0]
    config.write_text("no protobuf")
    with pytest.raises(AssertionError):
        eventually(lambda: predict(server, "one", BODY).status != 200, 3)
    config.write_text(model_config(two=f"{models}/half_plus {policy}"))
    eventually(lambda: predict(server, "one", BODY).status == 404)
    assert value(server, "two", BODY) == [2.0]


@pytest.mark.slow
def test_labels_at_the_start(start: Start, models: Path, tmp_path: Path) -> None:
    """serving_config: an error without --allow_version_labels_for_unavailable_models, and none with it."""
    config = tmp_path / "models.config"
    labels = 'version_labels { key: "stable" value: 3 }'
    config.write_text(model_config(half_plus=f"{models}/half_plus {labels}"))
    refused = start(f"--model_config_file={config}")
    allowed = start(f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models=true")
    allowed.wait_for("/v1/models/half_plus", "AVAILABLE")
    assert value(allowed, "half_plus", BODY, "/labels/stable") == [4.0]
    code, output = ended(refused)
    assert code != 0
    assert "not currently available" in output


@pytest.mark.slow
def test_prefer_tflite_model(start: Start, models: Path, tmp_path: Path) -> None:
    """main.cc, --prefer_tflite_model: model.tflite of the version's folder, or the SavedModel where there is none."""
    import tensorflow as tf

    export = tmp_path / "both" / "1"
    shutil.copytree(models / "half_plus" / "1", export)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(models / "half_plus" / "3"))
    (export / "model.tflite").write_bytes(converter.convert())
    config = tmp_path / "models.config"
    config.write_text(model_config(both=f"{tmp_path}/both", plain=f"{models}/half_plus"))
    preferred = start(f"--model_config_file={config}", "--prefer_tflite_model=true")
    plain = start(f"--model_config_file={config}")
    for server in (preferred, plain):
        server.wait_for("/v1/models/both", "AVAILABLE")
        server.wait_for("/v1/models/plain", "AVAILABLE")
        assert value(server, "plain", BODY) == [4.0]
    assert value(preferred, "both", BODY) == [4.0]
    assert value(plain, "both", BODY) == [2.0]
