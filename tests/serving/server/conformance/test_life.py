"""Versions that come, fail and go while requests run: serving_basic, core/aspired_versions_manager.h."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from ..processes import ServerProcess
from .clients import Grpc, eventually, predict, predict_request, value
from .conftest import Start
from .saved_models import write_broken

FLAGS = ("--model_name=half_plus", "--file_system_poll_wait_seconds=1", "--max_num_load_retries=0")
BODY = {"instances": [2.0]}


def states(server: ServerProcess, model: str = "half_plus") -> dict[str, str]:
    answer = server.call("GET", f"/v1/models/{model}")
    if answer.status != 200:
        return {}
    return {one["version"]: one["state"] for one in answer.json()["model_version_status"]}


def publish(models: Path, base: Path, version: int, name: str | None = None) -> None:
    """Copy a version of half_plus and move it into place at once."""
    shutil.copytree(models / "half_plus" / str(version), base.parent / "incoming")
    base.mkdir(exist_ok=True)
    (base.parent / "incoming").rename(base / (name or str(version)))


def publish_slow(models: Path, base: Path, version: int, request: Any) -> None:
    """Move a version of shapes into place whose warm-up, and so whose load, takes as long as `request` does."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    incoming = base.parent / "incoming"
    shutil.copytree(models / "shapes" / "1", incoming)
    (incoming / "assets.extra").mkdir()
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    with tf.io.TFRecordWriter(str(incoming / "assets.extra" / "tf_serving_warmup_requests")) as records:
        records.write(log.SerializeToString())
    base.mkdir(exist_ok=True)
    incoming.rename(base / str(version))


def test_versions_come_and_go(models: Path, tmp_path: Path, start: Start) -> None:
    """serving_basic: the newest version is served; a broken one ends with its error, and the old one stays.

    A folder that goes takes its version with it (file_system_storage_path_source.cc).
    """
    base = tmp_path / "half_plus"
    publish(models, base, 1)
    server = start(f"--model_base_path={base}", *FLAGS)
    server.wait_for("/v1/models/half_plus", "AVAILABLE")
    assert value(server, "half_plus", BODY) == [2.0]

    publish(models, base, 2)
    eventually(lambda: states(server) == {"1": "END", "2": "AVAILABLE"})
    assert value(server, "half_plus", BODY) == [3.0]
    assert predict(server, "half_plus", BODY, "/versions/1").status == 404

    write_broken(base, 5)
    eventually(lambda: states(server).get("5") == "END")
    (entry,) = server.call("GET", "/v1/models/half_plus/versions/5").json()["model_version_status"]
    assert entry["status"]["error_code"] not in ("OK", "")
    assert entry["status"]["error_message"]
    with Grpc(server.grpc) as client:
        state, code, message = client.status("half_plus", 5)[5]
        assert state == "END"
        assert code != 0
        assert message
    assert states(server)["2"] == "AVAILABLE"
    assert value(server, "half_plus", BODY) == [3.0]
    assert predict(server, "half_plus", BODY, "/versions/5").status == 404

    shutil.rmtree(base / "5")
    shutil.rmtree(base / "2")
    eventually(lambda: states(server).get("2") == "END" and states(server)["1"] == "AVAILABLE")
    assert value(server, "half_plus", BODY) == [2.0]


def test_no_request_fails_while_versions_change(models: Path, tmp_path: Path, start: Start) -> None:
    """core/availability_preserving_policy.h: the new version is available before the old one goes."""
    base = tmp_path / "half_plus"
    publish(models, base, 1)
    server = start(f"--model_base_path={base}", *FLAGS)
    server.wait_for("/v1/models/half_plus", "AVAILABLE")
    publish(models, base, 3)
    answers: list[Any] = []

    def swapped() -> bool:
        answers.append(value(server, "half_plus", BODY))
        return bool(states(server) == {"1": "END", "3": "AVAILABLE"})

    eventually(swapped)
    assert answers == sorted(answers)
    assert value(server, "half_plus", BODY) == [4.0]


def test_names_of_version_folders(models: Path, tmp_path: Path, start: Start) -> None:
    """file_system_storage_path_source.cc: numbers, also with leading zeros (00000123); others are passed."""
    base = tmp_path / "half_plus"
    publish(models, base, 1, "00000123")
    publish(models, base, 2, "copy_of_124")
    publish(models, base, 2, "125.tmp")
    publish(models, base, 2, "-1")
    (base / "notes.txt").write_text("beside them")
    server = start(f"--model_base_path={base}", *FLAGS)
    server.wait_for("/v1/models/half_plus", "AVAILABLE")
    assert states(server) == {"123": "AVAILABLE"}
    assert value(server, "half_plus", BODY, "/versions/123") == [2.0]


def test_a_model_that_comes_later(models: Path, tmp_path: Path, start: Start) -> None:
    """server.cc waits for the first version of a folder that is empty, and serves it when it is there."""
    base = tmp_path / "half_plus"
    base.mkdir()
    server = start(f"--model_base_path={base}", *FLAGS)
    with pytest.raises(AssertionError):
        server.wait_for("/v1/models/half_plus", "AVAILABLE", 3)
    publish(models, base, 2)
    server.wait_for("/v1/models/half_plus", "AVAILABLE")
    assert value(server, "half_plus", BODY) == [3.0]


def test_loading_and_unloading_are_states(models: Path, tmp_path: Path, start: Start) -> None:
    """get_model_status.proto: LOADING while a version's warm-up runs, UNLOADING while a request still holds it."""
    import concurrent.futures

    import numpy as np

    base = tmp_path / "shapes"
    shutil.copytree(models / "shapes" / "1", base / "1")
    server = start(f"--model_base_path={base}", "--model_name=shapes", "--file_system_poll_wait_seconds=1")
    server.wait_for("/v1/models/shapes", "AVAILABLE")
    slow = predict_request("shapes", "slow", rounds=np.array([2500], np.int32))
    publish_slow(models, base, 2, slow)
    eventually(lambda: states(server, "shapes") == {"1": "AVAILABLE", "2": "LOADING"})
    while_loading = predict(server, "shapes", {"inputs": 1.0, "signature_name": "scalar"}, "/versions/2")
    with Grpc(server.grpc) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        eventually(lambda: states(server, "shapes").get("2") == "AVAILABLE")
        eventually(lambda: states(server, "shapes").get("1") == "END")
        slow.inputs["rounds"].int_val[:] = [20000]
        running = pool.submit(client.predictions.Predict, slow, 90)
        shutil.rmtree(base / "2")
        eventually(lambda: states(server, "shapes").get("2") == "UNLOADING")
        assert running.result().outputs["y"].float_val == [20000.0]
        eventually(lambda: states(server, "shapes").get("2") == "END")
    # core/basic_manager.cc: what is loading is not found.
    assert while_loading.status == 404, while_loading.body


def test_sigterm(models: Path, start: Start) -> None:
    """The process ends and frees its ports."""
    server = start(f"--model_base_path={models}/half_plus", "--model_name=half_plus")
    server.wait_for("/v1/models/half_plus", "AVAILABLE")
    assert value(server, "half_plus", BODY) == [4.0]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)


def test_sigterm_while_a_version_loads(models: Path, tmp_path: Path, start: Start) -> None:
    """The process ends at once: nothing waits for a load, which may take hours."""
    import numpy as np

    base = tmp_path / "shapes"
    publish_slow(models, base, 1, predict_request("shapes", "slow", rounds=np.array([10**8], np.int32)))
    server = start(f"--model_base_path={base}", "--model_name=shapes")
    server.wait_for("/v1/models/shapes", "LOADING")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
