"""Swaps the running server to the version that the pointer names: `python -m serving.torchserve.follow <pid>`.

A child of the server, whose process id is its argument; it exits with the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from serving.repository import RepositoryError, model_dir, served_version
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.config import ready_marker, staged
from serving.torchserve.drain import wait_for_queue
from serving.torchserve.launch import stage_version
from serving.torchserve.management import Management

POLL_SECONDS = 1
SETTLE_SECONDS = 0.5
"""Maximum time of a call between the lookup of the default version and its queue."""


def swap(settings: Settings, version: int) -> None:
    """Register `version`, wait for its worker, make it the default, and unregister the others.

    Raises `ManifestError` if the version differs from its manifest, and `TargetError` if it is refused or not ready in
    `settings.ready_seconds`; then the old version stays.
    """
    management = Management(settings, timeout=settings.ready_seconds)
    registered = management.versions(settings.model)
    if version not in registered:
        stage_version(settings, version)
        management.register(settings.model, staged(settings, version).name)
    try:
        _wait_until_ready(management, settings, version)
    except TargetError:
        if registered and version not in registered:
            management.unregister(settings.model, version)
        raise
    management.set_default(settings.model, version)
    others = [other for other in registered if other != version]
    if others:
        time.sleep(SETTLE_SECONDS)
    for other in others:
        # Unregistering kills the worker at once.
        wait_for_queue(settings, other)
        management.unregister(settings.model, other)
        staged(settings, other).unlink(missing_ok=True)


def is_ready(description: Mapping[str, Any]) -> bool:
    """Return True if a version, described by `Management.describe`, has a ready worker."""
    return any(worker["status"] == "READY" for worker in description["workers"])


def watch(settings: Settings, server: int) -> None:
    """Touch the file of the health checks every second while a worker is ready, until the server ends.

    TorchServe answers `/ping` with 200 before a worker has loaded the model and after it was killed, and gives up a
    worker that does not start again in five minutes. Without a worker for `settings.ready_seconds`, end the server,
    so that its supervisor restarts it.
    """
    marker, answered = ready_marker(settings), time.monotonic()
    while os.getppid() == server:
        with contextlib.suppress(TargetError):
            # A failed call says nothing about the worker: the file ages.
            running = Management(settings, timeout=3).describe(settings.model)
            if running and is_ready(running):
                answered = time.monotonic()
                marker.touch()
            else:
                marker.unlink(missing_ok=True)
        if time.monotonic() - answered > settings.ready_seconds:
            sys.stderr.write(f"torchserve: no worker answers for {settings.ready_seconds} s; starting anew\n")
            os.kill(server, signal.SIGTERM)
            return
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Follow the pointer until the server ends. Each version is tried once."""
    settings, server = Settings.from_environment(), int(sys.argv[1])
    folder = model_dir(settings.repository, "torchserve", settings.model)
    tried: int | None = None
    # A swap takes up to `ready_seconds`, and the old version answers meanwhile.
    watcher = threading.Thread(target=watch, args=(settings, server), daemon=True)
    watcher.start()
    while watcher.is_alive():
        watcher.join(POLL_SECONDS)
        try:
            version = served_version(folder)
            if version is None or version == tried:
                continue
            running = _running(settings)
            if not running:
                continue
            tried = version
            if version != int(running["modelVersion"]):
                swap(settings, version)
        except (TargetError, RepositoryError, OSError) as error:
            sys.stderr.write(f"{error}; version {version} is not served\n")


def _running(settings: Settings) -> dict[str, Any] | None:
    """Return the default version; None while the server starts."""
    try:
        return Management(settings).describe(settings.model)
    except TargetError:
        return None


def _wait_until_ready(management: Management, settings: Settings, version: int) -> None:
    end = time.monotonic() + settings.ready_seconds
    while time.monotonic() < end:
        description = management.describe(settings.model, version)
        if description and is_ready(description):
            return
        time.sleep(0.2)
    raise TargetError(
        f"torchserve: the worker of version {version} was not ready within {settings.ready_seconds} s"
    )


if __name__ == "__main__":
    main()
