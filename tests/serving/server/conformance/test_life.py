"""Versions that come, fail and go while requests run: serving_basic, core/aspired_versions_manager.h."""

from __future__ import annotations

import concurrent.futures
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..processes import ServerProcess, running_tfs
from .clients import Grpc, eventually, predict, predict_request, value, write_warm_up
from .saved_models import model_config, write_broken

BODY = {"instances": [2.0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of `alive` lie, each in a folder that is empty at first."""
    root = tmp_path_factory.mktemp("life")
    for name in ("swapped", "slow"):
        (root / name).mkdir()
    return root


@pytest.fixture(scope="module")
def alive(root: Path) -> Iterator[ServerProcess]:
    """A server of the models below `root`, whose versions the tests publish."""
    config = root / "models.config"
    config.write_text(model_config(**{path.name: str(path) for path in root.iterdir()}))
    flags = ("--file_system_poll_wait_seconds=0.2", "--max_num_load_retries=0")
    with running_tfs(root, f"--model_config_file={config}", *flags, models=()) as server:
        server.wait_for_log("HTTP on", 60)
        yield server


def states(server: ServerProcess, model: str) -> dict[str, str]:
    answer = server.call("GET", f"/v1/models/{model}")
    if answer.status != 200:
        return {}
    return {one["version"]: one["state"] for one in answer.json()["model_version_status"]}


def publish(version: Path, target: Path, warm_up: Any = None) -> None:
    """Copy a version, with a Predict as its warm-up, and move it into place at once."""
    incoming = target.parent.parent / f"incoming-{target.parent.name}"
    shutil.copytree(version, incoming)
    if warm_up is not None:
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

        log = PredictionLog()
        log.predict_log.request.CopyFrom(warm_up)
        write_warm_up(incoming, log.SerializeToString())
    incoming.rename(target)


def rounds(count: int) -> Any:
    """A Predict that takes as long as it says."""
    return predict_request("slow", "slow", rounds=np.array([count], np.int32))


def test_versions_come_and_go(alive: ServerProcess, models: Path, root: Path) -> None:
    """serving_basic: the newest version is served; a broken one ends with its error, and the old one stays.

    server.cc waits for the first version of a folder that is empty. file_system_storage_path_source.cc: a folder that
    goes takes its version with it; names are numbers, also with leading zeros, and others are passed.
    """
    half_plus, base = models / "half_plus", root / "swapped"
    assert states(alive, "swapped") == {}
    for name in ("copy_of_124", "125.tmp", "-1", "00000001"):
        publish(half_plus / "1", base / name)
    alive.wait_for("/v1/models/swapped", "AVAILABLE")
    assert states(alive, "swapped") == {"1": "AVAILABLE"}
    assert value(alive, "swapped", BODY, "/versions/1") == [2.0]
    publish(half_plus / "2", base / "2")
    eventually(lambda: states(alive, "swapped") == {"1": "END", "2": "AVAILABLE"})
    assert value(alive, "swapped", BODY) == [3.0]
    assert predict(alive, "swapped", BODY, "/versions/1").status == 404

    write_broken(base, 5)
    eventually(lambda: states(alive, "swapped").get("5") == "END")
    (entry,) = alive.call("GET", "/v1/models/swapped/versions/5").json()["model_version_status"]
    assert entry["status"]["error_code"] not in ("OK", "")
    assert entry["status"]["error_message"]
    with Grpc(alive.grpc) as client:
        state, code, message = client.status("swapped", 5)[5]
    assert (state, code != 0, message) == ("END", True, entry["status"]["error_message"])
    assert value(alive, "swapped", BODY) == [3.0]
    assert predict(alive, "swapped", BODY, "/versions/5").status == 404

    shutil.rmtree(base / "5")
    shutil.rmtree(base / "2")
    eventually(lambda: states(alive, "swapped").get("2") == "END")
    assert value(alive, "swapped", BODY) == [2.0]


def test_loading_and_unloading_are_states(alive: ServerProcess, models: Path, root: Path) -> None:
    """get_model_status.proto: LOADING while a version's warm-up runs, UNLOADING while a request still holds it."""
    base = root / "slow"
    publish(models / "shapes" / "1", base / "1")
    alive.wait_for("/v1/models/slow", "AVAILABLE")
    publish(models / "shapes" / "1", base / "2", rounds(2500))
    eventually(lambda: states(alive, "slow") == {"1": "AVAILABLE", "2": "LOADING"})
    scalar = {"inputs": 1.0, "signature_name": "scalar"}
    # core/basic_manager.cc: what is loading is not found.
    assert predict(alive, "slow", scalar, "/versions/2").status == 404
    eventually(lambda: states(alive, "slow") == {"1": "END", "2": "AVAILABLE"})
    with Grpc(alive.grpc) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.predictions.Predict, rounds(20000), 90)
        shutil.rmtree(base / "2")
        eventually(lambda: states(alive, "slow").get("2") == "UNLOADING")
        assert running.result().outputs["y"].float_val == [20000.0]
        eventually(lambda: states(alive, "slow").get("2") == "END")


def test_sigterm_while_tensorflow_is_imported(models: Path, tmp_path: Path) -> None:
    """The process ends soon and with exit code 0: no request has begun yet."""
    with running_tfs(tmp_path, f"--model_base_path={models}/shapes", models=()) as importing:
        importing.wait_for_log("it is not tensorflow_model_server", 60)  # What comes next is the import.
        assert importing.stop() == 0
        assert "stopping" not in importing.log
