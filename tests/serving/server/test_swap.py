"""Versions change under a steady trickle of calls, and no call fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from .artifacts import images, logits, point, write_manifest, write_onnx
from .conftest import CONFIG
from .processes import ServerProcess, tandem_server

pytestmark = pytest.mark.slow

ONE = images(1)


@contextmanager
def trickle(*calls: Callable[[], None]) -> Iterator[list[str]]:
    """Repeat each call from a thread of its own every few milliseconds; what fails is noted."""
    failures: list[str] = []
    counts = [0] * len(calls)
    done = threading.Event()

    def repeat(index: int) -> None:
        while not done.wait(0.003):
            try:
                calls[index]()
            except Exception as error:  # noqa: BLE001 - any failure is what the test looks for
                failures.append(f"{type(error).__name__}: {error}")
            counts[index] += 1

    threads = [threading.Thread(target=repeat, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert min(counts) > 20


def oip_calls(server: ServerProcess) -> tuple[Callable[[], None], Callable[[], None]]:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": ONE.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    client = triton.InferenceServerClient(server.grpc)
    given = triton.InferInput("image", [1, 28, 28, 1], "FP32")
    given.set_data_from_numpy(ONE)

    def rest() -> None:
        answer = server.call("POST", "/v2/models/fashion/infer", body)
        assert answer.status == 200, answer.body
        document = answer.json()
        expected = logits(ONE, int(document["model_version"]))
        np.testing.assert_allclose([document["outputs"][0]["data"]], expected, atol=1e-5)

    def grpc() -> None:
        answer = client.infer("fashion", [given])
        expected = logits(ONE, int(answer.get_response().model_version))
        np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=1e-5)

    return rest, grpc


def test_tandem_server_swaps_refuses_a_tampered_version_and_rolls_back(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "fashion"
    write_manifest(write_onnx(folder, 1), "model.onnx")
    point(folder, 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    try:
        server.wait_for("/v2/health/ready")
        with trickle(*oip_calls(server)) as failures:
            write_manifest(write_onnx(folder, 2), "model.onnx")
            point(folder, 2)
            server.wait_for("/v2/models/fashion", '"versions":\\["2"\\]')
            server.wait_for_log("version 1 is unloaded")

            tampered = write_onnx(folder, 3)
            write_manifest(tampered, "model.onnx")
            (tampered / "model.onnx").write_bytes((tampered / "model.onnx").read_bytes() + b"\0")
            point(folder, 3)
            server.wait_for_log("version 3 is refused")
            refused = server.call("GET", "/v2/models/fashion/versions/3")
            assert (refused.status, "model.onnx was changed: sha256" in refused.error) == (404, True)
            assert server.call("GET", "/v2/models/fashion").json()["versions"] == ["2"]

            (folder / "4").mkdir()
            (folder / "4" / "model.onnx").write_bytes(b"no model")
            point(folder, 4)
            server.wait_for_log("version 4 is refused")

            point(folder, 1)
            server.wait_for("/v2/models/fashion", '"versions":\\["1"\\]')
            time.sleep(0.2)
        assert failures == []
        assert server.log.count("is refused") == 2  # said once, not at every poll
    finally:
        assert server.stop() == 0


def test_tf_serving_swaps_by_its_config_file(
    tfs: ServerProcess, saved_models: Path, model_config: Path
) -> None:
    body = json.dumps({"instances": ONE.tolist()}).encode()
    answers = [logits(ONE, version)[0] for version in (1, 2)]

    def rest() -> None:
        answer = tfs.call("POST", "/v1/models/fashion:predict", body)
        assert answer.status == 200, answer.body
        given = answer.json()["predictions"][0]["logits"]
        assert any(np.allclose(given, expected, atol=1e-5) for expected in answers)

    def write(version: int) -> None:
        beside = model_config.with_suffix(".new")
        beside.write_text(CONFIG.format(root=saved_models, version=version))
        beside.replace(model_config)

    with trickle(rest) as failures:
        for version, old in ((2, 1), (1, 2)):
            write(version)
            tfs.wait_for(f"/v1/models/fashion/versions/{version}", "AVAILABLE")
            tfs.wait_for(f"/v1/models/fashion/versions/{old}", "END")
        write(7)  # which does not exist: version 1 goes on
        tfs.wait_for("/v1/models/fashion/versions/7", "does not exist")
        write(1)
    assert failures == []
