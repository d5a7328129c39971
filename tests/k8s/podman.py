"""Podman with a storage, a network and a state of its own: it sees nothing of the user's, and leaves nothing behind.

`python -m tests.k8s.podman` says whether it can be used here, and if not, why not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from serving.platforms import engine

OLDEST = (4, 3)
"""The first that knows `kube play`; Debian 12 has it."""
INSTALL = "Debian: sudo apt-get install podman catatonit containernetworking-plugins"
CONFIGURATION = """\
[containers]
# No limits of Podman's own, which only a fully privileged root could set: those that we have.
default_ulimits = []
log_driver = "k8s-file"
"""
"""In the place of the machine's configuration."""
LEASES = Path("/var/lib/cni/networks")
ROOM = 8 << 30
"""Bytes of memory that must be free for the storage to lie there; it takes 5 GB while images are taken over."""


class PodmanError(Exception):
    """Podman is not here, or did not do what was asked of it; the message says what it said."""


def require() -> None:
    """Raises `PodmanError` where no Podman can be used, saying why and what to do."""
    if sys.platform != "linux":
        raise PodmanError("Podman runs pods of its own storage on Linux only")
    if shutil.which("podman") is None:
        raise PodmanError(f"podman is not installed ({INSTALL})")
    done = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise PodmanError(
            f"expected podman 4.3 or newer, found {done.stdout.strip() or done.stderr.strip()!r}"
        )
    if os.geteuid() != 0:
        raise PodmanError("pods in bridged networks of their own need root: `sudo make test-k8s`")


class Podman:
    """`podman` with its own folder; `opened` makes one and takes it away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = folder.name
        configuration = folder / "containers.conf"
        configuration.write_text(CONFIGURATION)
        self.environment = os.environ | {"CONTAINERS_CONF": str(configuration), "TMPDIR": str(folder)}
        self.command = ["podman", "--log-level=error"]
        for option in ("root", "runroot", "tmpdir", "network-config-dir"):
            self.command.append(f"--{option}={folder / option}")

    def __call__(
        self, *arguments: str, timeout: float = 300, check: bool = True, errors: bool = False
    ) -> str:
        """What a command wrote to stdout, and to stderr with `errors`. Raises `PodmanError` where it fails."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise PodmanError(
                f"`podman {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done.stdout

    def load(self, image: str) -> None:
        """Take an image over from Docker's engine."""
        archive = self.folder / f"{re.sub('[^a-z0-9]', '-', image)}.tar"
        try:
            done = subprocess.run(
                ["docker", "save", image, f"--output={archive}"],
                env=os.environ | {"DOCKER_HOST": engine.find()[0]},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise PodmanError(f"`docker save {image}` failed: {done.stderr.strip()}")
            self("load", "--quiet", f"--input={archive}", timeout=600)
        finally:
            archive.unlink(missing_ok=True)

    def addresses(self, count: int) -> list[str]:
        """Make the network; returns addresses in it to be given to pods."""
        self("network", "create", self.network)
        (network,) = json.loads(self("network", "inspect", self.network))
        hosts = ipaddress.ip_network(network["subnets"][0]["subnet"]).hosts()
        # The first is the gateway's.
        return [str(next(hosts)) for _ in range(count + 1)][1:]

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that Podman knows of a container."""
        (found,) = json.loads(self("container", "inspect", container))
        known: dict[str, Any] = found
        return known

    def remove(self) -> None:
        """Take everything away, whatever state it is in."""
        self("pod", "rm", "--all", "--force", "--time=0", check=False)
        self("network", "rm", "--force", self.network, check=False)
        # The plugins of CNI leave the folder of their leases behind.
        shutil.rmtree(LEASES / self.network, ignore_errors=True)
        mounts = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.is_relative_to(self.folder)), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def opened() -> Iterator[Podman]:
    """A Podman that is there while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-pods-", dir="/var/tmp"))
    if psutil.virtual_memory().available > ROOM:
        # Gone at once when it goes; a disk may need minutes to forget 25,000 files.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
    podman = Podman(folder)
    try:
        yield podman
    finally:
        podman.remove()


if __name__ == "__main__":
    try:
        require()
    except PodmanError as missing:
        sys.exit(str(missing))
