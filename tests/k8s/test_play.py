"""The local overlay, rendered and played by Podman on the images built from this checkout: the pods start in the order
and under the rights that the manifests say, answer as their source frameworks do, come back, and leave in order."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

from serving import repository, targets
from serving.platforms import engine, images
from serving.platforms.base import PlatformError
from serving.repository import Manifest
from serving.settings import PREFIX, Settings
from serving.targets.base import port_setting, sample_folder, served_manifest
from tests.e2e import parity
from tests.e2e.conftest import REUSE, TARGETS, until
from tests.k8s import manifests
from tests.k8s import podman as podmans
from tests.k8s.manifests import render_with
from tests.k8s.play import Pods
from tests.k8s.podman import Podman, PodmanError
from tests.k8s.policy import quantity
from tests.k8s.wiring import container_ports
from tests.pictures import Images
from tests.serving.gateway import free_ports

pytestmark = [pytest.mark.podman, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
KILLED = ("litert", "torchserve")
"""One of each kind: a server that is its container's first process, and one that is that one's child."""


@pytest.fixture(scope="module")
def published() -> Settings:
    """The deployment whose versions are played: the end-to-end tests', else this checkout's own."""
    settings = Settings.from_environment()
    if reused := os.environ.get(REUSE):
        settings = dataclasses.replace(settings, artifacts=Path(reused).resolve())
    if not (settings.repository / f"{settings.model}.json").exists():
        pytest.exit(
            f"no version of {settings.model} is published in {settings.repository}: `make deploy` first",
            returncode=1,
        )
    return settings


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    try:
        engine.find()
        podmans.require()
    except (PlatformError, PodmanError) as missing:
        pytest.skip(str(missing))
    with podmans.opened() as own:
        yield own


@pytest.fixture(scope="module")
def pods(
    published: Settings,
    podman: Podman,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pods:
    """The five Deployments as pods that were started, with the version that is published."""
    tag = images.reference("models", published).split(":")[1]
    version = {"name": f"{images.REGISTRY}/models", "newTag": tag}
    documents = render_with("overlays/local", [], tmp_path_factory.mktemp("overlay"), images=[version])
    running = manifests.pods(documents)
    numbers = {pod.owner.removeprefix("Deployment/"): container_ports(pod).values() for pod in running}
    free = iter(free_ports(sum(map(len, numbers.values()))))
    pods = Pods(podman, documents, {name: {n: next(free) for n in own} for name, own in numbers.items()})
    names = [image.removeprefix(f"{images.REGISTRY}/").split(":")[0] for image in sorted(pods.images())]
    environment = os.environ | {PREFIX + "ARTIFACTS": str(published.artifacts)}
    command = [sys.executable, "-m", "pipelines.cli", "images", *names]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0

    def report(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"==> {line}", flush=True)

    pods.up(report)
    assert set(pods.pods) == set(targets.NAMES)
    return pods


@pytest.fixture(scope="module")
def ready(pods: Pods, reference: dict[str, np.ndarray]) -> Pods:
    """The pods, each of which its own startup and readiness probes have found ready in the time that they allow; the
    reference is computed while they start."""
    with ThreadPoolExecutor(len(pods.pods)) as pool:
        for name, is_ready in zip(pods.pods, pool.map(pods.ready, pods.pods), strict=True):
            assert is_ready, f"{name} is not ready in time; the end of its log:\n{pods.log(name)}"
    return pods


@pytest.fixture(scope="module")
def settings(published: Settings, ready: Pods) -> Settings:
    """Where the clients find the pods on this host."""
    ports: dict[str, Any] = {}
    for name in targets.NAMES:
        for purpose, number in targets.load(name).container.ports.items():
            ports[port_setting(name, purpose)] = ready.host_ports[name][number]
    return dataclasses.replace(published, host="127.0.0.1", **ports)


@pytest.fixture(scope="module")
def pictures(published: Settings) -> Images:
    return parity.pictures(published.artifacts)[0]


def manifest(published: Settings, target: str) -> Manifest:
    """Of the version that a target serves."""
    folder = repository.model_dir(published.repository, target, published.model)
    version = repository.served_version(folder)
    assert version is not None
    return repository.read_manifest(folder / str(version))


@pytest.fixture(scope="module")
def reference(published: Settings, pictures: Images) -> dict[str, np.ndarray]:
    """Each framework's own logits, from the weights of the training that the published version was made of."""
    metrics = manifest(published, "litert").metrics
    for record in (published.artifacts / "runs").glob("*/gates.json"):
        own = json.loads(record.read_text())["metrics"]
        if metrics == {f"{f}/{name}": value for f, found in own.items() for name, value in found.items()}:
            return parity.logits(record.parent, pictures)
    raise AssertionError(f"no training in {published.artifacts}/runs has the published version's figures")


@pytest.mark.parametrize("target", TARGETS)
def test_a_pod_answers_as_its_source_framework_does_by_every_protocol(
    settings: Settings, target: str, pictures: Images, reference: dict[str, np.ndarray]
) -> None:
    expected = reference[manifest(settings, target).source]
    clients = targets.load(target).clients(settings)
    assert target == "tfjs" or {"rest", "grpc"} <= set(clients)
    for protocol, client in clients.items():
        try:
            parity.assert_agrees(client.predict({"image": pictures}), expected, f"{target} {protocol}")
        finally:
            client.close()


@pytest.mark.parametrize(
    ("path", "sample"),
    [
        ("tf-serving/v1/models/fashion:predict", "instances.json"),
        ("torchserve/predictions/fashion", "instances.json"),
        ("litert/v2/models/fashion/infer", "inference.json"),
        ("onnxruntime/v2/models/fashion/infer", "inference.json"),
    ],
)
def test_the_gateway_reaches_the_others_by_their_services_names(
    settings: Settings, path: str, sample: str
) -> None:
    samples = sample_folder(settings, served_manifest(settings, "tfjs").version)
    body = (samples / sample).read_bytes()
    answer = urllib3.request("POST", f"http://127.0.0.1:{settings.tfjs_port}/api/{path}", body=body)
    assert answer.status == 200, answer.data


@pytest.mark.parametrize("target", targets.NAMES)
def test_a_pod_has_the_rights_that_its_manifest_says_and_no_more(
    ready: Pods, podman: Podman, target: str
) -> None:
    pod = ready.pods[target]
    own = podman.inspect(pod.container)
    status = Path(f"/proc/{own['State']['Pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = str(pod.spec["securityContext"]["runAsUser"])
    assert user != "0"
    assert fields["Uid"].split() == [user] * 4
    assert (fields["CapEff"], fields["CapBnd"]) == ("0" * 16, "0" * 16)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert own["HostConfig"]["ReadonlyRootfs"]
    assert own["HostConfig"]["Memory"] == quantity(pod.server["resources"]["limits"]["memory"])
    for folder in ("/", "/etc", "/models", "/tandem/repository/torchserve"):
        with pytest.raises(PodmanError):
            podman("exec", pod.container, "sh", "-c", f"test -d {folder} && echo x > {folder}/x")
    podman("exec", pod.container, "sh", "-c", "echo x > /tmp/x")


@pytest.mark.parametrize("target", targets.NAMES)
def test_a_pod_is_alive(ready: Pods, target: str) -> None:
    assert ready.passes(target, "livenessProbe")


@pytest.mark.parametrize("target", KILLED)
def test_a_killed_server_comes_back_on_the_same_version(
    ready: Pods,
    settings: Settings,
    podman: Podman,
    target: str,
    pictures: Images,
    reference: dict[str, np.ndarray],
) -> None:
    container = ready.pods[target].container
    before = podman.inspect(container)["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: podman.inspect(container)["State"]["Pid"] not in (0, before), 30)
    assert ready.ready(target), ready.log(target)
    client = targets.load(target).clients(settings)["rest"]
    expected = reference[manifest(settings, target).source][:10]
    parity.assert_agrees(client.predict({"image": pictures[:10]}), expected, target)
    client.close()


def test_the_pods_leave_in_order_within_their_grace(ready: Pods, podman: Podman) -> None:
    def stop(name: str) -> tuple[int, float]:
        pod, started = ready.pods[name], time.monotonic()
        # Of the grace period, preStop takes its part first.
        pause = pod.server["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = pod.spec["terminationGracePeriodSeconds"] - pause
        podman("stop", f"--time={grace}", pod.container)
        return podman.inspect(pod.container)["State"]["ExitCode"], time.monotonic() - started

    with ThreadPoolExecutor(len(ready.pods)) as pool:
        left = dict(zip(ready.pods, pool.map(stop, ready.pods), strict=True))
    assert {name: code for name, (code, _) in left.items()} == dict.fromkeys(ready.pods, 0), left
