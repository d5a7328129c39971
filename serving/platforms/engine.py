"""The container engine of this machine: its address, its SDK, and its compose."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from serving.platforms.base import PlatformError
from serving.targets.base import TargetError
from serving.targets.http import HttpConnection

if TYPE_CHECKING:
    from docker import DockerClient

DEFAULT = "unix:///var/run/docker.sock"
PATIENCE = 3
"""Seconds for an engine to answer its first request."""
BUSY = 600
"""Seconds for other requests, which wait while the engine removes gigabytes from a slow disk."""


@functools.cache
def find() -> tuple[str, str]:
    """Return the engine's address and version. Raises `PlatformError` with the reason if there is none."""
    address = os.environ.get("DOCKER_HOST") or _of_context()
    if not address.startswith("unix://"):
        raise PlatformError(
            f"the engine at {address} is not reached by a local socket, and the containers read the model "
            "repository from this machine's disk"
        )
    path = address.removeprefix("unix://")
    try:
        with contextlib.closing(HttpConnection(f"unix:{path}", timeout=PATIENCE)) as connection:
            return address, str(connection.json("GET", "/version")["Version"])
    except (TargetError, LookupError, TypeError) as error:
        if isinstance(error.__cause__, PermissionError):
            lacking = f"you may not use {path}: `sudo usermod -aG docker $USER`, then log in again"
            raise PlatformError(lacking) from None
        raise PlatformError(f"no container engine answers at {path}") from None


@functools.cache
def compose() -> tuple[str, ...]:
    """Return the command of compose. Raises `PlatformError` if there is none."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, "version"], capture_output=True, check=False)
        if done.returncode == 0:
            return command
    raise PlatformError(
        "neither `docker compose` nor docker-compose is here (Docker's package docker-compose-plugin, "
        "Debian's docker-compose)"
    )


@functools.cache
def has_buildkit() -> bool:
    """Return True if `docker build` has BuildKit: by the plugin buildx or, before Docker 23, built in."""
    if shutil.which("docker") is None:
        return False
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0:
        return True
    command = ["docker", "version", "--format", "{{.Client.Version}}"]
    major = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(".")[0]
    return major.isdigit() and int(major) < 23


def client() -> DockerClient:
    """Return the engine's SDK. Raises `PlatformError` as `find` does."""
    # The import takes half a second.
    import docker

    return docker.DockerClient(base_url=find()[0], version="auto", timeout=BUSY)


@contextlib.contextmanager
def opened() -> Iterator[DockerClient]:
    """Open the engine's SDK; its errors become `PlatformError`."""
    own = client()
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield own
    except (DockerException, RequestException) as error:
        raise PlatformError(f"the container engine refused: {explained(str(error))}") from error
    finally:
        own.close()


def explained(text: str, count: int = 8) -> str:
    """Return the last lines of an output, with advice for a full disk."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if "no space left on device" in text.lower():
        lines.append("The disk is full; `docker system prune` frees what no container uses.")
    return "\n  ".join(lines[-count:])


def _of_context() -> str:
    """Return the engine of the command line's context, for Docker Desktop, Colima and rootless engines."""
    if Path(DEFAULT.removeprefix("unix://")).exists():
        return DEFAULT
    if shutil.which("docker") is None:
        raise PlatformError("no container engine is installed")
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or DEFAULT
