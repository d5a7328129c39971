"""Requests played at load: saved_model_warmup, servables/tensorflow/saved_model_warmup_util.cc and its tests."""

from __future__ import annotations

import concurrent.futures
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .clients import Grpc, code_and_details, eventually, example, floats, predict_request, value
from .conftest import Start
from .saved_models import model_config
from .test_grpc_inference import multi, request_for


def log(kind: str, request: Any) -> bytes:
    """A PredictionLog of one request: predict_log, classify_log, regress_log, multi_inference_log."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    message = PredictionLog()
    getattr(message, kind).request.CopyFrom(request)
    data: bytes = message.SerializeToString()
    return data


@pytest.fixture
def warm(models: Path, tmp_path: Path) -> Callable[..., str]:
    """Copy a model with records as its warm-up file; its base path."""

    def copy(name: str, model: str, version: int, *records: bytes, raw: bytes = b"") -> str:
        import tensorflow as tf

        export = tmp_path / name / str(version)
        shutil.copytree(models / model / str(version), export)
        (export / "assets.extra").mkdir()
        file = export / "assets.extra" / "tf_serving_warmup_requests"
        if raw:
            file.write_bytes(raw)
        else:
            with tf.io.TFRecordWriter(str(file)) as writer:
                for record in records:
                    writer.write(record)
        return str(tmp_path / name)

    return copy


def test_warm_up(start: Start, tmp_path: Path, warm: Callable[..., str]) -> None:
    """saved_model_warmup: predict, classify, regress and several at once; what fails keeps the version from loading.

    saved_model_warmup_util.cc: a request that fails, more than 1000 records, a file that is no TFRecord, an unknown
    kind of log; the name of the model in a request does not matter.
    """
    good = predict_request("any_name", x=floats([1.0]))
    failing = log("predict_log", predict_request("fails", "fails", x=floats([11.0])))
    regress = log("regress_log", request_for("Regress", "regress_x_to_y", example(x=2.0)))
    classify = log("classify_log", request_for("Classify", "classify_x_to_y", example(x=2.0)))
    several = log("multi_inference_log", multi("regress_x_to_y", "classify_x_to_y"))
    wrong = log("regress_log", request_for("Regress", "wrong", example(x=2.0)))
    sound = {
        "one": warm("one", "half_plus", 1, log("predict_log", good)),
        "four": warm("four", "half_plus_two", 123, regress, classify, several),
        "thousand": warm("thousand", "half_plus", 1, *[log("predict_log", good)] * 1000),
    }
    broken = {
        "fails": warm("fails", "shapes", 1, failing),
        "wrong": warm("wrong", "half_plus_two", 123, wrong),
        "garbage": warm("garbage", "half_plus", 1, raw=b"this is no TFRecord file at all"),
        "too_many": warm("too_many", "half_plus", 1, *[log("predict_log", good)] * 1001),
    }
    config = tmp_path / "models.config"
    config.write_text(model_config(**sound))
    server = start(f"--model_config_file={config}", "--max_num_load_retries=0")
    for name in sound:
        server.wait_for(f"/v1/models/{name}", "AVAILABLE")
    assert value(server, "one", {"instances": [2.0]}) == [2.0]
    with Grpc(server.grpc) as client:
        reload = concurrent.futures.ThreadPoolExecutor(1).submit(
            client.reload, model_config(**sound, **broken)
        )
        for name in broken:
            ended = eventually(lambda name=name: states(client, name).get("END"))
            assert ended[0] != 0, name
            assert ended[1], name
        assert value(server, "one", {"instances": [2.0]}) == [2.0]
        # server_core.cc, WaitUntilModelsAvailable.
        assert code_and_details(reload.result)[0] == "UNKNOWN"


def states(client: Grpc, model: str) -> dict[str, tuple[int, str]]:
    """State -> error code and message; empty while nothing is known of the model."""
    import grpc

    try:
        return {state: (code, message) for state, code, message in client.status(model).values()}
    except grpc.RpcError:
        return {}


def test_warm_up_can_be_off(start: Start, warm: Callable[..., str]) -> None:
    """main.cc, --enable_model_warmup."""
    failing = log("predict_log", predict_request("fails", "fails", x=floats([11.0])))
    base = warm("fails", "shapes", 1, failing)
    server = start(f"--model_base_path={base}", "--enable_model_warmup=false")
    server.wait_for("/v1/models/default", "AVAILABLE")
    assert value(server, "default", {"signature_name": "scalar", "inputs": 1.0}) == 2.0
