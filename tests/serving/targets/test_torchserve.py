import dataclasses
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import torch
import urllib3
from PIL import Image

from models.base import Model, load
from models.signature import Arrays
from pipelines.exporting import torchserve as exporter
from pipelines.exporting.torch_graph import by_name, servable
from serving import golden
from serving.golden import Golden
from serving.repository import (
    GOLDEN,
    POINTER,
    Pointer,
    file_digests,
    model_dir,
    version_dir,
    write_manifest,
    write_pointer,
)
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.torchserve import TARGET
from serving.targets.torchserve_client import npy_body
from serving.torchserve.config import MAXIMUM_BODY, management_address, state, temporary
from serving.torchserve.follow import stage_version, swap
from serving.torchserve.management import Management
from tests.e2e.conftest import until
from tests.pictures import Images
from tests.pipelines.test_publish import manifests
from tests.serving.gateway import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SEEDS = {1: 1, 2: 2}
IMAGES: Images = np.random.default_rng(0).random((20, 28, 28, 1), np.float32)
INFERENCE = "/predictions/fashion"


class Server:
    """A TorchServe of the test's own, started as a supervisor would."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self.log = log
        self.pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", settings.torchserve_rest_port, timeout=60, retries=False
        )
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        launch = TARGET.launch(self.settings)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                launch.command, env=os.environ | launch.environment, stdout=log, stderr=subprocess.STDOUT
            )
        return self.process

    def wait(self, version: int) -> None:
        end = time.monotonic() + 120
        while TARGET.served_version(self.settings) != version:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)

    def workers(self) -> list[psutil.Process]:
        (java,) = psutil.Process(self.process.pid).children()
        return java.children(recursive=True)

    def post(self, body: bytes) -> urllib3.BaseHTTPResponse:
        return self.pool.request("POST", INFERENCE, body)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def publish(settings: Settings, version: int, archive: Path, sample: bytes = b"") -> None:
    directory = version_dir(settings.repository, "torchserve", "fashion", version)
    directory.mkdir(parents=True)
    (directory / "model.mar").write_bytes(archive.read_bytes())
    if sample:
        (directory / GOLDEN).write_bytes(sample)
    described = dataclasses.replace(
        manifests("")["torchserve"],
        version=version,
        files=file_digests(directory),
        serve="model.mar",
        signature=load("fashion").spec.signature.to_json(),
    )
    write_manifest(directory, described)


def point(settings: Settings, version: int) -> None:
    write_pointer(model_dir(settings.repository, "torchserve", "fashion") / POINTER, Pointer(version))


@pytest.fixture(scope="module")
def model() -> Model:
    return load("fashion")


@pytest.fixture(scope="module")
def reference(model: Model) -> dict[int, Arrays]:
    """What PyTorch itself answers, by version."""
    answers = {}
    for version, seed in SEEDS.items():
        with torch.inference_mode():
            outputs = servable(model, model.initial_weights(seed))(torch.from_numpy(IMAGES))
        answers[version] = by_name(model, outputs)
    return answers


@pytest.fixture(scope="module")
def server(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("torchserve")
    ports = free_ports(3)
    settings = dataclasses.replace(
        Settings(),
        artifacts=folder / "artifacts",
        torchserve_rest_port=ports[0],
        torchserve_metrics_port=ports[1],
        torchserve_grpc_port=ports[2],
    )
    for version, seed in SEEDS.items():
        exporter.EXPORTER.write(model, model.initial_weights(seed), folder, {"image": IMAGES})
        publish(settings, version, folder / "model.mar")
    point(settings, 1)
    running = Server(settings, folder / "torchserve.log")
    try:
        running.wait(1)
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _version_one(server: Server) -> None:
    point(server.settings, 1)
    server.wait(1)


def test_every_client_agrees_with_torch(server: Server, reference: dict[int, Arrays]) -> None:
    for name, client in TARGET.clients(server.settings).items():
        outputs = client.predict({"image": IMAGES})
        client.close()
        assert outputs["logits"].dtype == np.float32
        np.testing.assert_allclose(outputs["logits"], reference[1]["logits"], atol=1e-5, rtol=0, err_msg=name)
        np.testing.assert_allclose(outputs["probabilities"], reference[1]["probabilities"], atol=1e-5, rtol=0)


def test_curl_lines_work_as_printed(server: Server, tmp_path: Path) -> None:
    samples = tmp_path / "with space"
    samples.mkdir()
    Image.fromarray((IMAGES[0, :, :, 0] * 255).astype(np.uint8)).save(samples / "picture.png")
    answers = {}
    for endpoint in TARGET.endpoints(server.settings, 1, samples):
        if endpoint.curl:
            result = subprocess.run(["bash", "-c", endpoint.curl], capture_output=True, text=True, check=True)
            answers[endpoint.protocol] = result.stdout
    assert len(json.loads(answers["REST"])["predictions"][0]["probabilities"]) == 10
    assert "ts_inference_requests_total" in answers["metrics"]


def test_clients_say_what_was_refused(server: Server) -> None:
    for name, client in TARGET.clients(server.settings).items():
        with pytest.raises(TargetError, match="at least one row"):
            client.predict({"image": IMAGES[:0]})
        with pytest.raises(TargetError, match="INVALID_ARGUMENT" if name == "grpc" else "answered 400"):
            client.predict({"image": np.full((1, 28, 28, 1), np.nan, np.float32)})
        assert client.predict({"image": IMAGES[:1]})["logits"].shape == (1, 10)
        client.close()


@pytest.mark.parametrize("body", [b"", b"hello", b"[" * 100_000, b'{"instances": []}', b"\x89PNG\r\n\x1a\nx"])
def test_bad_bodies_answer_400_and_the_worker_lives_on(server: Server, body: bytes) -> None:
    workers = server.workers()
    answer = server.post(body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert list(error) == ["code", "type", "message"]
    assert "expected" in error["message"]
    assert server.workers() == workers


def test_many_large_bodies_at_once_are_answered_and_a_larger_one_is_413(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(server.post, [bytes(MAXIMUM_BODY)] * 8)
    assert [answer.status for answer in answers] == [400] * 8
    address = f"http://127.0.0.1:{server.settings.torchserve_rest_port}{INFERENCE}"
    curl = ["curl", "-s", "-w", "%{http_code}", "-H", "Expect:", "--data-binary", "@-", address]
    said = subprocess.run(curl, input=bytes(MAXIMUM_BODY + 1), capture_output=True)
    assert said.stdout == b"413"
    assert server.pool.request("GET", "/ping").status == 200


def test_management_is_closed_to_the_network(server: Server) -> None:
    """A Unix socket that is its user's alone, and a gRPC service that Linux lets nobody connect to."""
    path = Path(management_address(server.settings).removeprefix("unix:"))
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    settings = server.settings
    offered = {
        ("127.0.0.1", port)
        for port in (
            settings.torchserve_rest_port,
            settings.torchserve_metrics_port,
            settings.torchserve_grpc_port,
        )
    }
    (java,) = psutil.Process(server.process.pid).children()
    connections = java.net_connections("inet")
    listening = {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in connections
        if c.status == psutil.CONN_LISTEN
    }
    ((closed, port),) = listening - offered
    assert listening >= offered
    for host in (closed, "127.0.0.1", "localhost"):
        with grpc.insecure_channel(f"{host}:{port}") as channel:
            call = channel.unary_unary(
                "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    for method, target in (("GET", "/models"), ("DELETE", "/models/fashion/1"), ("PUT", "/models/fashion/1")):
        assert server.pool.request(method, target).status in (404, 405)
    assert TARGET.served_version(settings) == 1


def test_no_address_may_be_registered(server: Server) -> None:
    management = Management(server.settings)
    repository = version_dir(server.settings.repository, "torchserve", "fashion", 2) / "model.mar"
    for url in (repository.as_uri(), "http://127.0.0.1:9/model.mar", "../model-store/fashion-1.mar"):
        status, _ = management.call("POST", f"/models?url={url}")
        assert status in (400, 404)
    assert management.versions() == [1]


def test_it_writes_into_its_own_folder_only(server: Server) -> None:
    assert not Path("logs").exists()
    assert not Path("key_file.json").exists()
    assert state(server.settings).stat().st_mode & 0o777 == 0o700


class Trickle:
    """Calls that go on while something happens: four connections at once, one that waits between calls."""

    def __init__(self, settings: Settings, reference: dict[int, Arrays], copies: int = 1) -> None:
        self.settings = settings
        self.reference = reference
        self.failures: list[str] = []
        self.answered = {1: 0, 2: 0}
        self.images = np.concatenate([IMAGES] * copies)
        self.stopping = threading.Event()
        names = ["rest", "rest-npy", "rest-npy", "grpc"]
        self.threads = [threading.Thread(target=self.run, args=(name, 0.0)) for name in names]
        self.threads.append(threading.Thread(target=self.run, args=("rest", 0.05)))

    def run(self, name: str, pause: float) -> None:
        client = TARGET.clients(self.settings)[name]
        while not self.stopping.is_set():
            try:
                logits = client.predict({"image": self.images})["logits"][: len(IMAGES)]
            except TargetError as error:
                self.failures.append(f"{name}: {error}")
                continue
            near = [v for v, o in self.reference.items() if abs(o["logits"] - logits).max() < 1e-5]
            if len(near) == 1:
                self.answered[near[0]] += 1
            else:
                self.failures.append(f"{name}: an answer of no version")
            time.sleep(pause)
        client.close()

    def __enter__(self) -> "Trickle":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.thorough
def test_versions_swap_without_a_failed_request(server: Server, reference: dict[int, Arrays]) -> None:
    # A swap that failed has left it.
    stage_version(server.settings, 2)
    Management(server.settings, timeout=60).register("fashion-2.mar")
    with Trickle(server.settings, reference) as trickle:
        time.sleep(1)
        point(server.settings, 2)
        server.wait(2)
        time.sleep(1)
    assert trickle.failures == []
    assert min(trickle.answered.values()) > 10
    # Calls of 600 pictures: the version that leaves has a queue of a second or more.
    with Trickle(server.settings, reference, copies=30) as trickle:
        time.sleep(1)
        point(server.settings, 1)
        server.wait(1)
        time.sleep(5)
    assert trickle.failures == []
    assert min(trickle.answered.values()) > 0
    assert Management(server.settings).versions() == [1]
    assert len(server.workers()) == 1


def test_a_version_that_is_refused_leaves_what_is_served(server: Server, tmp_path: Path) -> None:
    broken, wrong = tmp_path / "broken.mar", tmp_path / "wrong"
    exporter.pack(load("fashion"), broken, {"model.onnx": b"no graph"}, "onnx")
    publish(server.settings, 3, broken)
    good = version_dir(server.settings.repository, "torchserve", "fashion", 1) / "model.mar"
    wrong.mkdir()
    sample = Golden({"image": IMAGES[:1]}, {"logits": np.full((1, 10), 9, np.float32)}, 1e-5)
    golden.write(wrong, sample)
    publish(server.settings, 4, good, (wrong / GOLDEN).read_bytes())
    for version, reason in (
        (3, "ModelProto does not have a graph|Protobuf parsing failed"),
        (4, "limit is 9e-05"),
    ):
        with pytest.raises(TargetError, match=f"version {version} of fashion is refused: .*({reason})"):
            swap(server.settings, version)
    assert TARGET.served_version(server.settings) == 1
    assert Management(server.settings).versions() == [1]
    assert server.post(b"").status == 400


def test_a_pointer_to_a_version_that_is_not_there_is_logged_and_passed_over(server: Server) -> None:
    point(server.settings, 99)
    until(lambda: "version 99 is not served" in server.log.read_text(), 30)
    assert "manifest.json is missing" in server.log.read_text()
    assert TARGET.served_version(server.settings) == 1


def test_killed_or_stopped_it_comes_back_with_the_pointers_version(
    server: Server, reference: dict[int, Arrays]
) -> None:
    """Stopped, it answers first."""
    large = np.concatenate([IMAGES] * 50)
    for version in (2, 1):
        point(server.settings, version)
        children = psutil.Process(server.process.pid).children(recursive=True)
        if version == 2:
            server.process.kill()
            server.process.wait()
            until(lambda: TARGET.served_version(server.settings) is None, 5)
        else:
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.post, npy_body({"image": large}))
                time.sleep(0.2)
                server.stop()
            assert answer.result().status == 200
            assert server.process.returncode == 0
            assert not temporary(server.settings).exists()
        server.start()
        server.wait(version)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        client = TARGET.clients(server.settings)["grpc"]
        np.testing.assert_allclose(
            client.predict({"image": IMAGES})["logits"], reference[version]["logits"], atol=1e-5, rtol=0
        )
        client.close()


def test_a_killed_worker_is_started_again(server: Server) -> None:
    for worker in server.workers():
        worker.kill()
    server.wait(1)
    until(lambda: server.post(b"").status == 400, 60)
