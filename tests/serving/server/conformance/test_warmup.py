"""Requests played at load: saved_model_warmup, servables/tensorflow/saved_model_warmup_util.cc and its tests."""

from __future__ import annotations

import concurrent.futures
import shutil
from pathlib import Path
from typing import Any

from ..processes import running_tfs
from .clients import (
    Grpc,
    code_and_details,
    example,
    floats,
    multi,
    predict_request,
    request_for,
    value,
    write_warm_up,
)
from .saved_models import model_config


def log(kind: str, request: Any) -> bytes:
    """A PredictionLog of one request: predict_log, classify_log, regress_log, multi_inference_log."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    message = PredictionLog()
    getattr(message, kind).request.CopyFrom(request)
    data: bytes = message.SerializeToString()
    return data


def test_warm_up(models: Path, tmp_path: Path) -> None:
    """saved_model_warmup_util.cc: what fails keeps the version from loading; the model's name does not matter."""

    def warm(name: str, model: str, version: int, *records: bytes, raw: bytes = b"") -> str:
        export = tmp_path / name / str(version)
        shutil.copytree(models / model / str(version), export)
        file = write_warm_up(export, *records)
        if raw:
            file.write_bytes(raw)
        return str(tmp_path / name)

    runs = log("predict_log", predict_request("any_name", "runs", x=floats([1.0])))
    regress = log("regress_log", request_for("Regress", "regress_x_to_y", example(x=2.0)))
    classify = log("classify_log", request_for("Classify", "classify_x_to_y", example(x=2.0)))
    several = log("multi_inference_log", multi("regress_x_to_y", "classify_x_to_y"))
    sound = {
        "runs": warm("runs", "shapes", 1, runs, runs),
        "four": warm("four", "half_plus_two", 123, regress, classify, several),
    }
    failing = log("predict_log", predict_request("fails", "fails", x=floats([11.0])))
    wrong = log("regress_log", request_for("Regress", "wrong", example(x=2.0)))
    none = log("predict_log", predict_request("none"))
    broken = {
        "too large": warm("fails", "shapes", 1, failing),
        "signature 'wrong'": warm("wrong", "half_plus_two", 123, wrong),
        "expected input x, got none": warm("none", "half_plus", 1, none),
        "cannot be read": warm("no_message", "half_plus", 1, b"garbage"),
        "TFRecord": warm("no_records", "half_plus", 1, raw=b"this is no TFRecord file at all"),
    }
    config = tmp_path / "models.config"
    config.write_text(model_config(**sound))
    flags = (f"--model_config_file={config}", "--max_num_load_retries=0")
    with running_tfs(tmp_path, *flags, models=list(sound)) as server:
        # Nothing but its own records has run.
        assert value(server, "runs", {"signature_name": "runs", "instances": [1.0]}) == [3]
        with Grpc(server.grpc) as client:
            paths = {path.rpartition("/")[2]: path for path in broken.values()}
            reload = concurrent.futures.ThreadPoolExecutor(1).submit(
                client.reload, model_config(**sound, **paths)
            )
            for reason, path in broken.items():
                answer = server.wait_for(f"/v1/models/{path.rpartition('/')[2]}", '"END"')
                status = answer.json()["model_version_status"][0]["status"]
                assert status["error_code"] != "OK"
                assert reason in status["error_message"]
            # server_core.cc, WaitUntilModelsAvailable.
            assert code_and_details(reload.result)[0] == "UNKNOWN"
            request = predict_request("fails", "scalar", x=floats(1))
            assert code_and_details(client.predict, request)[0] == "NOT_FOUND"
