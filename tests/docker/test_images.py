"""The images as they are, and their Dockerfiles by hadolint."""

from __future__ import annotations

import functools
import http.server
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from serving.platforms import builder, engine, images, wheels

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "docker/server/requirements.txt"
LARGEST = {"server": 330, "web": 250, "torchserve": 1400, "tf-serving": 1800, "tfx": 2400}
"""Megabytes (10^6), the base included."""
MARKED = {"tfx": [pytest.mark.tfx]}
"""Built for the tests of TFX only."""
BUILD_TOOLS = ("pip", "pip3", "uv", "gcc", "cc", "g++", "make", "ld", "npm", "node", "git", "curl")


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerClient]:
    client = engine.client()
    yield client
    client.close()


@pytest.mark.parametrize("name", images.IMAGES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [hadolint, "--config", ROOT / ".hadolint.yaml", ROOT / "docker" / name / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "megabytes"), [pytest.param(*own, marks=MARKED.get(own[0], [])) for own in LARGEST.items()]
)
def test_an_image_is_no_larger_than_it_need_be(docker: DockerClient, name: str, megabytes: int) -> None:
    assert docker.images.get(images.reference(name)).attrs["Size"] / 1e6 <= megabytes


@pytest.mark.docker
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=MARKED.get(n, [])) for n in images.IMAGES if n not in ("models", "pipeline")],
)
def test_a_final_stage_has_nothing_to_build_with_and_says_what_it_is(docker: DockerClient, name: str) -> None:
    image = docker.images.get(images.reference(name))
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.labels.items()}
    assert labels["title"] == f"tandem/{name}"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == images.VERSION
    assert {"description", "revision"} <= set(labels)
    assert image.attrs["Config"]["User"] == "10001:10001"
    left = (
        "find / -xdev \\( -path '*/apt/lists/*' -o -path '*/.cache/*' -o -name '*.deb' \\) -type f -size +0"
    )
    script = f"for tool in {' '.join(BUILD_TOOLS)}; do command -v $tool; done; {left}; true"
    found = docker.containers.run(
        image, entrypoint=["sh", "-c"], command=[script], user="0", remove=True, network_disabled=True
    )
    assert found == b""


@pytest.mark.docker
def test_the_pipeline_s_image_has_all_that_trains_and_exports(docker: DockerClient) -> None:
    script = """
import importlib, pkgutil, pipelines.exporting, pipelines.training
for package in (pipelines.exporting, pipelines.training):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""
    as_its_pod: dict[str, Any] = {"remove": True, "network_disabled": True, "read_only": True}
    as_its_pod["tmpfs"] = {"/tmp": ""}
    image = images.reference("pipeline")
    assert docker.containers.run(image, ["-c", script], entrypoint=["python"], **as_its_pod) == b""
    assert docker.containers.run(image, ["settings"], **as_its_pod).count(b"TANDEM_") > 10


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index on loopback: pages of links to the wheels that the server's image is made of."""
    pins = [*SERVER.read_text().splitlines(), *(ROOT / "docker/builder/uv.txt").read_text().splitlines()]
    wheels.fetch(pins, platform.machine(), tmp_path, tmp_path / "pip.log")
    for wheel in list(tmp_path.glob("*.whl")):
        project = tmp_path / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        project.mkdir(exist_ok=True)
        wheel.rename(project / wheel.name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.docker
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_plain_build_that_has_only_an_index_gives_the_same_files(docker: DockerClient, index: str) -> None:
    """As `docker build` on a machine with a network: nothing was fetched for it."""
    if not engine.has_buildkit():
        pytest.skip(
            "this `docker` has no BuildKit, which the Dockerfile as it stands needs: install docker-buildx"
        )
    plain = "tandem.invalid/server:plain"
    arguments = ["--network=host", f"--build-arg=PIP_INDEX_URL={index}", f"--tag={plain}"]
    # The same base as the other's, which a machine without a registry has by its tag alone.
    arguments += (
        [f"--build-arg=BASE={wheels.BOOKWORM.image}"] if docker.images.list(wheels.BOOKWORM.image) else []
    )
    command = ["docker", "build", *arguments, "--file=docker/server/Dockerfile", "."]
    done = subprocess.run(command, cwd=ROOT, env=builder.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    script = "cd / && find opt/tandem app usr/local/bin -type f | sort | xargs sha256sum"
    try:
        files = [
            set(
                docker.containers.run(
                    image, entrypoint=["sh", "-c"], command=[script], remove=True
                ).splitlines()
            )
            for image in (images.reference("server"), plain)
        ]
    finally:
        docker.images.remove(plain)
    assert len(files[0]) > 1000
    assert files[0] ^ files[1] == set()
