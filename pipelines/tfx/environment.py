"""TFX's environment on this machine: its image if an engine answers, else a native one if its wheels fit."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.stages import Report
from pipelines.tfx.request import Request
from serving.platforms import command, engine, images, provision
from serving.platforms.base import PlatformError
from serving.platforms.docker import NOBODY
from serving.settings import Settings

if TYPE_CHECKING:
    from docker import DockerClient

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements" / "tfx.txt"
GLIBC = (2, 39)
"""The least glibc of the wheels of ml-metadata and TensorFlow Data Validation: Debian 13, Ubuntu 24.04."""
PYTHON = "python3.13"
PROGRESS = re.compile(r"INFO:absl:Component (\w+) is running|\s*(Epoch \d+/\d+)")


def choose(settings: Settings) -> Container | Native:
    """Return the environment for `settings.platform`. Raises `PlatformError` with what each lacks."""
    missing = []
    for kind, told in ((Container, "in a container"), (Native, "natively")):
        if settings.platform in ("auto", kind.name):
            try:
                return kind.find()
            except PlatformError as error:
                missing.append(f"{told}: {error}")
    raise PlatformError(
        "TFX can run nowhere on this machine.\n  "
        + "\n  ".join(missing)
        + "\nThe default runner has the same gates and needs neither: make pipeline"
    )


def run(
    where: Container | Native, settings: Settings, request: Request, arguments: Sequence[str], report: Report
) -> int:
    """Run TFX's side; its output goes to `tfx.log`, its components and epochs to the user. Returns its status."""
    log = settings.logs / "tfx.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")

    def read(line: str) -> None:
        if found := PROGRESS.match(line):
            report(f"tfx: {found[1] or found[2]}")

    with where.command(settings, request) as started:
        return command.run([*started, *arguments], log, read)


def _user(client: DockerClient) -> str:
    """Return the user of the container, `<uid>:<gid>`, whose files belong to this process's user."""
    if any("name=rootless" in option for option in client.info().get("SecurityOptions") or []):
        # Root in there is the user out here.
        return "0:0"
    return f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"


@dataclass(frozen=True)
class Container:
    """The image `tandem.invalid/tfx`."""

    server_image: str
    """The server image of InfraValidator; "" if there is none."""
    run_as: str
    """`<uid>:<gid>`"""
    name: str = "docker"

    @classmethod
    def find(cls) -> Container:
        """Ask the engine for the container's user and the server image. Raises `PlatformError` if no engine answers."""
        with engine.opened() as client:
            servers = (images.TF_SERVING, images.reference("tf-serving"))
            return cls(next((name for name in servers if images.find(client, name)), ""), _user(client))

    def prepare(self, settings: Settings, report: Report) -> None:
        provision.build(settings, ["tfx"], lambda name, line: report(f"{name}: {line}"))
        if not self.server_image:
            report(
                "InfraValidator is left out: there is no image of TensorFlow Serving (`make images` makes one)"
            )

    @contextlib.contextmanager
    def command(self, settings: Settings, request: Request) -> Iterator[list[str]]:
        address, name = engine.find()[0], f"{settings.project}-tfx-{os.getpid()}"
        # The engine that has built the image, whatever the command line's context is.
        docker = ["docker", f"--host={address}"]
        run = [*docker, "run", "--rm", "--init", f"--name={name}", f"--user={self.run_as}"]
        run += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        # The same path on both sides: ML Metadata keeps absolute ones, and InfraValidator mounts them.
        run += [f"--volume={request.folder}:{request.folder}"]
        if request.server_image:
            # InfraValidator starts a server on this engine and calls it on this machine's address.
            socket = Path(address.removeprefix("unix://"))
            run += ["--network=host", f"--volume={socket}:/var/run/docker.sock"]
            run += [f"--group-add={socket.stat().st_gid}"]
        else:
            run += ["--network=none"]
        _hand_over(request.folder, self.run_as)
        try:
            yield [*run, images.reference("tfx")]
        finally:
            # It is gone if it ended by itself.
            subprocess.run([*docker, "rm", "--force", name], capture_output=True, check=False)


@dataclass(frozen=True)
class Native:
    """A virtual environment of its own on this machine."""

    name: str = "process"
    server_image: str = ""

    @classmethod
    def find(cls) -> Native:
        """Raise `PlatformError` with the reason if TFX cannot run here."""
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise PlatformError(f"ml-metadata has no wheel for {sys.platform} on {platform.machine()}")
        library, version = platform.libc_ver()
        if library == "glibc" and tuple(map(int, version.split("."))) < GLIBC:
            wants = f"ml-metadata wants {'.'.join(map(str, GLIBC))} (Debian 13, Ubuntu 24.04)"
            raise PlatformError(f"this machine has glibc {version}, and {wants}")
        if shutil.which(PYTHON) is None:
            lacking = f"no {PYTHON} is on the PATH (Debian 13: apt-get install python3-venv python3-dev g++)"
            raise PlatformError(lacking)
        return cls()

    def prepare(self, settings: Settings, report: Report) -> None:
        venv, done = self._venv(settings), self._venv(settings) / ".done"
        if done.exists() and done.read_text() == PINS.read_text():
            return
        report(f"installing TFX into {venv}")
        command = [ROOT / "requirements" / "install", venv, PINS]
        variables = os.environ | {"PYTHON": PYTHON}
        made = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if made.returncode:
            raise PlatformError(f"TFX could not be installed: {(made.stderr or made.stdout).strip()[-2000:]}")
        done.write_text(PINS.read_text())

    @contextlib.contextmanager
    def command(self, settings: Settings, request: Request) -> Iterator[list[str]]:
        python = self._venv(settings) / "bin" / "python"
        yield ["env", f"PYTHONPATH={ROOT}", str(python), "-m", "pipelines.tfx"]

    @staticmethod
    def _venv(settings: Settings) -> Path:
        return settings.artifacts / "tfx" / "venv"


def _hand_over(folder: Path, run_as: str) -> None:
    """Give the runs' state to the container's user."""
    user, _, group = run_as.partition(":")
    if os.geteuid() == 0 and run_as != "0:0":
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, int(user), int(group), follow_symlinks=False)
