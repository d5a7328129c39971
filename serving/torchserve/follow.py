"""Swaps the running server to the version that the pointer names: `python -m serving.torchserve.follow <pid>`.

A child of the server, whose process id it is given: it leaves when the server has gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from serving.repository import RepositoryError, model_dir, served_version
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.config import staged
from serving.torchserve.drain import wait_for_queue
from serving.torchserve.launch import stage_version
from serving.torchserve.management import Management
from serving.torchserve.ready import is_ready

POLL_SECONDS = 1
SETTLE_SECONDS = 0.5
"""How long a call may be on its way between asking for the default version and standing in its queue."""


def swap(settings: Settings, version: int) -> None:
    """Register `version`, wait for its worker, make it the default, and unregister the others.

    Raises `ManifestError` where the version is not as published, and `TargetError` where it or the server refuses or
    the worker is not ready in `settings.ready_seconds`; what was served is served on.
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


def main() -> None:
    """Follow the pointer until the server leaves. A version that cannot be served is tried once.

    TorchServe gives up a worker that does not start again in five minutes, and says `Healthy` all the same; so a
    server without one for `settings.ready_seconds` is ended, for its supervisor to start anew.
    """
    settings, server = Settings.from_environment(), int(sys.argv[1])
    folder = model_dir(settings.repository, "torchserve", settings.model)
    tried: int | None = None
    answered = time.monotonic()
    while os.getppid() == server:
        time.sleep(POLL_SECONDS)
        try:
            version, running = served_version(folder), _running(settings)
            if running and is_ready(running):
                answered = time.monotonic()
            elif time.monotonic() - answered > settings.ready_seconds:
                sys.stderr.write(
                    f"torchserve: no worker answers for {settings.ready_seconds} s; starting anew\n"
                )
                os.kill(server, signal.SIGTERM)
                return
            if version is None or version == tried or not running:
                continue
            tried = version
            if version != int(running["modelVersion"]):
                swap(settings, version)
                answered = time.monotonic()
        except (TargetError, RepositoryError, OSError) as error:
            sys.stderr.write(f"{error}; version {version} is not served\n")


def _running(settings: Settings) -> dict[str, Any] | None:
    """The default version; None while the server starts."""
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
