"""Properties of containers: rights, draining by `docker stop`, failures that the engine would hide, monitoring."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import urllib3
from docker import DockerClient

from models.signature import Arrays
from serving import repository, targets
from serving.platforms import engine, images
from serving.platforms.base import MONITORING
from serving.platforms.docker import NOBODY
from serving.settings import PREFIX
from tests.e2e.conftest import PORTS, Stack, until
from tests.serving.gateway import free_ports

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.docker,
    pytest.mark.timeout(1800),
    pytest.mark.parametrize("stack", ["docker"], indirect=True),
]


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerClient]:
    client = engine.client()
    yield client
    client.close()


def container(docker: DockerClient, stack: Stack, service: str) -> Any:
    own = {"project": stack.settings.project, "service": service}
    labels = [f"com.docker.compose.{key}={value}" for key, value in own.items()]
    (found,) = docker.containers.list(all=True, filters={"label": labels})
    return found


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second deployment of the same version, on other ports and under another name; not started."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(stack.settings.artifacts, artifacts, ignore=shutil.ignore_patterns("run", "docker"))
    values: dict[str, Any] = {"artifacts": artifacts, "project": stack.settings.project + "-other"}
    values |= zip(PORTS, free_ports(len(PORTS)), strict=True)
    settings = dataclasses.replace(stack.settings, monitoring=False, **values)
    environment = stack.environment | {PREFIX + name.upper(): str(value) for name, value in values.items()}
    second = Stack(settings, environment | {PREFIX + "MONITORING": "0"}, stack.platform)
    yield second
    second.tandem("down", check=False)


@pytest.mark.parametrize("service", [*targets.NAMES, MONITORING])
def test_a_container_has_no_more_rights_than_it_needs(
    stack: Stack, docker: DockerClient, service: str
) -> None:
    own = container(docker, stack, service)
    host = own.attrs["HostConfig"]
    assert own.attrs["Config"]["User"] not in ("", "0", "root")
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert host["Memory"] > 0
    assert {binding["HostIp"] for ports in host["PortBindings"].values() for binding in ports} == {
        "127.0.0.1"
    }
    server = psutil.Process(own.attrs["State"]["Pid"]).children()[0]
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert own.exec_run(["bash", "-c", "echo x > /app/x || echo x > /etc/x"]).exit_code != 0
    for mount in own.attrs["Mounts"]:
        assert not mount["RW"] or mount["Destination"] == "/prometheus"


def test_the_gateway_reaches_every_target_by_name(stack: Stack) -> None:
    base = f"http://127.0.0.1:{stack.settings.tfjs_port}/api"
    body = (stack.settings.artifacts / "samples" / "inference.json").read_bytes()
    rows = (stack.settings.artifacts / "samples" / "instances.json").read_bytes()
    for path, content in {
        "tf-serving/v1/models/fashion:predict": rows,
        "torchserve/predictions/fashion": rows,
        "litert/v2/models/fashion/infer": body,
        "onnxruntime/v2/models/fashion/infer": body,
    }.items():
        answer = urllib3.request("POST", f"{base}/{path}", body=content)
        assert answer.status == 200, (path, answer.data)


def test_the_image_of_the_models_holds_what_is_published(stack: Stack, docker: DockerClient) -> None:
    """As a Kubernetes pod takes it from there: an init container copies one target's versions."""
    stack.tandem("images", "models")
    script = "cp -r /models/litert /tmp/ && cd /tmp/litert/fashion && cat current.json && ls $0"
    image = images.reference("models", stack.settings)
    pod: dict[str, Any] = {"user": "12345", "read_only": True, "tmpfs": {"/tmp": ""}, "remove": True}
    command = [script, str(stack.version)]
    said = docker.containers.run(image, entrypoint=["sh", "-c"], command=command, **pod).decode()
    assert json.loads(said.splitlines()[0])["version"] == stack.version
    assert {"manifest.json", "model.tflite"} <= set(said.splitlines())
    assert image == f"{images.REGISTRY}/models:fashion-{stack.version}"
    stack.tandem("images", "models")
    docker.images.remove(image)


def test_status_tells_which_tensorflow_serving_it_is(stack: Stack) -> None:
    status = stack.tandem("status").stdout
    image = stack.platform.states(stack.settings)["tf-serving"].image
    stand_in = "" if image.startswith("tensorflow/") else "our stand-in for "
    assert re.search(rf"^tf-serving +TensorFlow in {stand_in}TensorFlow Serving$", status, re.MULTILINE)
    assert f"prometheus is running: http://127.0.0.1:{stack.settings.prometheus_port}" in status


def test_logs_are_the_containers(stack: Stack) -> None:
    lines = stack.tandem("logs", "--lines", "3").stdout.splitlines()
    assert {line.split(":")[0] for line in lines} == set(targets.NAMES)
    assert len(lines) <= 15


def test_prometheus_sees_every_target(stack: Stack) -> None:
    base = f"http://127.0.0.1:{stack.settings.prometheus_port}/api/v1"

    def health() -> dict[str, str]:
        active = urllib3.request("GET", f"{base}/targets").json()["data"]["activeTargets"]
        return {one["labels"]["job"]: one["health"] for one in active}

    until(lambda: set(health().values()) == {"up"}, 60)
    assert set(targets.NAMES) <= set(health())
    rules = urllib3.request("GET", f"{base}/rules").json()["data"]["groups"]
    assert rules
    assert all(rule["health"] != "err" for group in rules for rule in group["rules"])


@pytest.mark.parametrize(
    ("service", "protocol"),
    [*((name, "grpc") for name in targets.NAMES if name != "tfjs"), ("torchserve", "rest-npy")],
)
def test_docker_stop_lets_a_request_be_answered(
    stack: Stack, docker: DockerClient, service: str, protocol: str
) -> None:
    own = container(docker, stack, service)
    client = targets.load(service).clients(stack.settings)[protocol]
    large = np.random.default_rng(0).random((1000, 28, 28, 1), np.float32)
    answers: list[Arrays | Exception] = []

    def ask() -> None:
        try:
            answers.append(client.predict({"image": large}))
        except Exception as error:  # noqa: BLE001
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    own.stop()
    seconds = time.monotonic() - started
    thread.join()
    client.close()
    assert isinstance(answers[0], dict), answers
    assert answers[0]["logits"].shape == (1000, 10)
    assert seconds < stack.settings.stop_seconds, "it was killed"
    assert stack.platform.states(stack.settings)[service].state == "stopped"
    stack.deploy()
    assert stack.platform.states(stack.settings)[service].state == "running"


def test_docker_stop_lets_the_gateway_pass_on_an_answer(stack: Stack, docker: DockerClient) -> None:
    count = 1000
    picture = {
        "name": "image",
        "datatype": "FP32",
        "shape": [count, 28, 28, 1],
        "data": [0.5] * (784 * count),
    }
    address = f"http://127.0.0.1:{stack.settings.tfjs_port}/api/onnxruntime/v2/models/fashion/infer"
    answers: list[urllib3.BaseHTTPResponse] = []
    body = json.dumps({"inputs": [picture]})

    def ask() -> None:
        answers.append(urllib3.PoolManager(retries=False).request("POST", address, body=body))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    container(docker, stack, "tfjs").stop()
    thread.join()
    assert answers[0].status == 200
    stack.deploy()


def test_a_version_that_was_changed_is_made_again_before_anything_is_started(
    stack: Stack, other: Stack
) -> None:
    folder = repository.version_dir(other.settings.repository, "torchserve", "fashion", stack.version)
    (archive,) = folder.glob("*.mar")
    archive.write_bytes(archive.read_bytes() + b"!")
    said = other.tandem("deploy").stdout
    assert f"version {stack.version} was changed since it was published and is made again" in said
    assert f"{archive.name} was changed: sha256" in said
    assert other.tandem("status").returncode == 0


def test_a_busy_port_is_named_before_anything_is_started(stack: Stack, other: Stack) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", other.settings.tfjs_port))
        squatter.listen()
        done = other.tandem("deploy", check=False)
    assert done.returncode == 1
    assert f"port {other.settings.tfjs_port}: wanted for tfjs (HTTP)" in done.stderr
    assert "TANDEM_TFJS_PORT=<port>" in done.stderr
    assert other.platform.states(other.settings) == {}


def test_two_deployments_under_one_name_are_refused(stack: Stack, other: Stack) -> None:
    other.environment[PREFIX + "PROJECT"] = stack.settings.project
    done = other.tandem("deploy", check=False)
    assert done.returncode == 1
    assert f"belongs to the deployment of {stack.settings.artifacts}" in done.stderr
    assert f"{PREFIX}PROJECT=<name>" in done.stderr
    assert stack.versions() == dict.fromkeys(targets.NAMES, stack.version)


def test_torchserves_management_does_not_leave_its_container(stack: Stack, docker: DockerClient) -> None:
    own = container(docker, stack, "torchserve")
    assert set(own.attrs["HostConfig"]["PortBindings"]) == {"7070/tcp", "8080/tcp", "8082/tcp"}
    look = "import os, pathlib as p; s = p.Path('/tandem/run/torchserve/tmp/management.sock'); "
    look += "print(os.getuid(), s.is_socket(), oct(s.stat().st_mode & 0o077))"
    user, is_socket, others = own.exec_run(["python", "-c", look]).output.decode().split()
    assert int(user) == NOBODY
    assert (is_socket, others) == ("True", "0o0")
    # As another user of the container, whose ports are all on addresses that offer inference or that nobody reaches.
    client = "from serving.torchserve.management import Management; from serving.settings import Settings; "
    client += "print(Management(Settings.from_environment()).versions())"
    assert own.exec_run(["python", "-c", client]).output.decode() == f"[{stack.version}]\n"
    assert own.exec_run(["python", "-c", client], user="12345").exit_code != 0


def test_torchserve_is_healthy_only_while_its_worker_is(stack: Stack, docker: DockerClient) -> None:
    own = container(docker, stack, "torchserve")
    ready = ["torchserve-ready"]
    assert own.attrs["Config"]["Healthcheck"]["Test"] == ["CMD", *ready]
    server = psutil.Process(own.attrs["State"]["Pid"])
    children = server.children(recursive=True)
    (worker,) = [own for own in children if "model_service_worker.py" in " ".join(own.cmdline())]
    worker.send_signal(signal.SIGKILL)
    ping = f"http://127.0.0.1:{stack.settings.torchserve_rest_port}/ping"
    until(lambda: own.exec_run(ready).exit_code != 0, 10)
    assert urllib3.request("GET", ping).json()["status"] == "Healthy", "which is why it is not asked"
    until(lambda: own.exec_run(ready).exit_code == 0, 60)
