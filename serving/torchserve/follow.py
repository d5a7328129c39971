"""Versions and health of the running server: swaps to the version that the pointer names, the file of health checks."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing, suppress

from serving.errors import TandemError
from serving.repository import model_dir, served_version, verify, version_dir
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.http import HttpConnection
from serving.torchserve.archive import stage
from serving.torchserve.config import ready_marker, staged
from serving.torchserve.management import Management
from serving.torchserve.trial import attempt

POLL_SECONDS = 1.0
SETTLE_SECONDS = 0.5
"""Maximum time of a call between the lookup of the default version and its queue."""


def stage_version(settings: Settings, version: int) -> None:
    """Put a published version into the model store and try it. Raises `ManifestError` or `TargetError`."""
    directory = version_dir(settings.repository, "torchserve", settings.model, version)
    manifest = verify(directory)
    archive = staged(settings, version)
    stage(directory / manifest.serve, archive, version, batched=manifest.batched)
    try:
        attempt(settings, archive, version)
    except TargetError:
        archive.unlink()
        raise


def swap(settings: Settings, version: int) -> None:
    """Register `version`, which waits for its worker, make it the default, and unregister the others.

    Raises `ManifestError` if the version differs from its manifest, and `TargetError` if it is refused or not ready in
    `settings.ready_seconds`; then the old version stays.
    """
    management = Management(settings, timeout=settings.ready_seconds)
    others = management.versions()
    stage_version(settings, version)
    if version in others:
        # Left by a swap that failed later.
        management.unregister(version)
        others.remove(version)
    try:
        management.register(staged(settings, version).name)
    except TargetError:
        with suppress(TargetError):
            management.unregister(version)
        staged(settings, version).unlink(missing_ok=True)
        raise
    management.set_default(version)
    time.sleep(SETTLE_SECONDS)
    for other in others:
        # Unregistering kills the worker at once.
        wait_for_queue(settings, other)
        management.unregister(other)
        staged(settings, other).unlink(missing_ok=True)


def wait_for_queue(settings: Settings, version: int | None = None, seconds: float | None = None) -> None:
    """Wait until a version (None: the default one) has answered all accepted calls.

    Its queue is served in order, so a call of our own is the last one; it waits `seconds` (`settings.ready_seconds`).
    """
    path = f"/predictions/{settings.model}" + ("" if version is None else f"/{version}")
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    timeout = settings.ready_seconds if seconds is None else seconds
    # Without a worker there are no calls to lose.
    with closing(HttpConnection(host, settings.torchserve_rest_port, timeout)) as http, suppress(TargetError):
        http.exchange("POST", path, b"")


def follow(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    """Swap to the version that the pointer names until the server ends. Each version is tried once."""
    folder = model_dir(settings.repository, "torchserve", settings.model)
    tried: int | None = None
    told = ""
    while server.poll() is None:
        time.sleep(POLL_SECONDS)
        version = None
        try:
            version = served_version(folder)
            if version is None or version == tried:
                continue
            running = None
            with suppress(TargetError):
                # It does not answer while it starts.
                running = Management(settings).describe()
            if not running:
                continue
            tried = version
            if version != int(running["modelVersion"]):
                swap(settings, version)
        except Exception as error:  # noqa: BLE001 - without this thread no version is swapped
            reason = error if isinstance(error, TandemError | OSError) else repr(error)
            line = f"{reason}; {f'version {version}' if version else 'a new version'} is not served\n"
            if line != told and server.poll() is None:
                sys.stderr.write(line)
            told = line


def watch(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    """Touch the file of the health checks every second while a worker is ready, until the server ends.

    TorchServe answers `/ping` with 200 before a worker has loaded the model and after it was killed, and gives up a
    worker that does not start again in five minutes. Without a worker for `settings.ready_seconds`, end the server,
    so that its supervisor restarts it.
    """
    marker, answered = ready_marker(settings), time.monotonic()
    while server.poll() is None:
        with suppress(TargetError):
            # A failed call says nothing about the worker: the file ages.
            running = Management(settings, timeout=3).describe()
            if running and any(worker["status"] == "READY" for worker in running["workers"]):
                answered = time.monotonic()
                marker.touch()
            else:
                marker.unlink(missing_ok=True)
        if time.monotonic() - answered > settings.ready_seconds:
            sys.stderr.write(f"torchserve: no worker answers for {settings.ready_seconds} s; starting anew\n")
            server.terminate()
            return
        time.sleep(POLL_SECONDS)
