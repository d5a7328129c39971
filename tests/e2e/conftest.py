"""Five endpoints, deployed as a user deploys them, on free ports and in a folder of their own, on each platform."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipelines import stages
from serving import platforms, targets
from serving.platforms.base import Platform
from serving.settings import PREFIX, Settings
from serving.targets.base import TargetError
from tests.e2e import parity
from tests.pictures import Images
from tests.serving.gateway import free_ports

ROOT = Path(__file__).parents[2]
TANDEM = Path(sys.executable).with_name("tandem")
REUSE = "E2E_ARTIFACTS"
"""Names a folder to deploy in and to leave, so that a second run need not train again."""
PORTS = [name for name in vars(Settings()) if name.endswith("_port")]
KEPT = ("data", "runs", "web")
"""The artifacts that a second platform's deployment takes over: it exports, gates and publishes, but trains no more."""
PROFILE = "smoke"
TARGETS = [
    pytest.param(name, marks=pytest.mark.browser) if name == "tfjs" else name for name in targets.NAMES
]
"""Each target, to be asked by its clients: tfjs answers in a browser."""


@dataclass
class Stack:
    """A deployment, and the command line that changes it."""

    settings: Settings
    environment: dict[str, str]
    platform: Platform
    output: str = ""
    seconds: float = 0.0
    version: int = 0

    def tandem(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command, own = [str(TANDEM), *arguments], self.environment
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=1500)
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def deploy(self, *arguments: str) -> str:
        started = time.monotonic()
        self.output = self.tandem("deploy", *arguments).stdout
        self.seconds = time.monotonic() - started
        found = re.search(r"5 of 5 targets answer with version (\d+)", self.output)
        assert found, self.output
        self.version = int(found[1])
        return self.output

    def curl_lines(self) -> dict[str, str]:
        """The lines to paste, by target, as they were printed."""
        return dict(re.findall(r"^# (\S+)\n(curl .+)$", self.output, re.MULTILINE))

    def versions(self) -> dict[str, int | None]:
        return {name: targets.load(name).served_version(self.settings) for name in targets.NAMES}


def take_over(artifacts: Path, profile: str) -> None:
    """Have the pictures, the page's scripts and the finished training that this checkout's own artifacts hold."""
    folder = os.environ.get(f"{PREFIX}ARTIFACTS", "artifacts")
    own = Settings.from_environment({f"{PREFIX}PROFILE": profile, f"{PREFIX}ARTIFACTS": folder})
    run = stages.load_recipe(own, print).folder
    for path in (own.artifacts / "data", own.artifacts / "web", run / "tensorflow", run / "pytorch"):
        copy = artifacts / path.relative_to(own.artifacts)
        if path.exists() and not copy.exists() and not (path / "checkpoints").exists():
            shutil.copytree(path, copy)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the first platform's deployment, whose training the second one goes on with."""
    reused = os.environ.get(REUSE)
    artifacts = Path(reused).resolve() if reused else tmp_path_factory.mktemp("e2e") / "artifacts"
    take_over(artifacts, PROFILE)
    yield artifacts
    if not reused:
        shutil.rmtree(artifacts, ignore_errors=True)


@pytest.fixture(scope="session", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def stack(
    request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The five targets on a freshly trained model, on one platform."""
    platform: str = request.param
    artifacts = trained
    if platform != "process":
        artifacts = tmp_path_factory.mktemp("e2e") / "artifacts"
        for name in KEPT:
            if (trained / name).exists():
                shutil.copytree(trained / name, artifacts / name)
    values: dict[str, str] = {
        "profile": PROFILE,
        "artifacts": str(artifacts),
        "platform": platform,
        "project": f"tandem-test-{os.getpid()}",
        "monitoring": "1" if platform == "docker" else "0",
    }
    values |= dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    environment |= {PREFIX + name.upper(): value for name, value in values.items()}
    settings = Settings.from_environment(environment)
    stack = Stack(settings, environment, platforms.choose(settings)[0])
    try:
        stack.deploy()
        yield stack
    finally:
        stack.tandem("down", check=False)
        if artifacts != trained:
            shutil.rmtree(artifacts, ignore_errors=True)


@pytest.fixture(scope="session")
def pictures(stack: Stack) -> tuple[Images, np.ndarray]:
    """Test pictures and their labels."""
    return parity.pictures(stack.settings.artifacts)


@pytest.fixture(scope="session")
def reference(stack: Stack, pictures: tuple[Images, np.ndarray]) -> dict[str, np.ndarray]:
    """Each framework's own logits on these pictures, from the weights that this deployment trained."""
    (run,) = (stack.settings.artifacts / "runs").iterdir()
    return parity.logits(run, pictures[0])


@dataclass
class Trickle:
    """Calls to every REST endpoint, one after the other, until it is stopped."""

    calls: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@contextmanager
def trickle(stack: Stack, image: Images) -> Iterator[Trickle]:
    """Keep calling every target while the block runs; one thread a target."""
    result, stop = Trickle(), threading.Event()

    def call(name: str) -> None:
        client = targets.load(name).clients(stack.settings)["rest"]
        while not stop.wait(0.02):
            try:
                client.predict({"image": image})
            except TargetError as error:
                result.failures.append(f"{name}: {error}")
            result.calls[name] = result.calls.get(name, 0) + 1
        client.close()

    threads = [threading.Thread(target=call, args=(name,)) for name in targets.NAMES if name != "tfjs"]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for it; returns how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.1)
    return time.monotonic() - started
