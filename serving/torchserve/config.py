"""TorchServe's configuration: properties, folders, addresses of management."""

from __future__ import annotations

import json
import platform
import socket
import sys
from pathlib import Path
from string import Template

from serving.settings import Settings

TEMPLATE = Path(__file__).with_name("config.properties")
LOOPBACK = "127.0.0.1"
BROADCAST = "127.255.255.255"
"""Loopback's broadcast address: Linux lets a server listen on it, and refuses all connections to it."""
MAXIMUM_BODY = 8 * 1024 * 1024
"""Bytes: 2,600 pictures as .npy. A larger request is answered 413, and too many large ones at once 507. With 16 MiB
in a heap of 256, two dozen at once left a server that answered 507 for ever."""


def state(settings: Settings) -> Path:
    """Return the server's folder: configuration, staged archives. Only its owner may read it."""
    return settings.run / "torchserve"


def model_store(settings: Settings) -> Path:
    """Return the folder of the archives that the server may register."""
    return state(settings) / "model-store"


def staged(settings: Settings, version: int) -> Path:
    """Return the archive of a version in the model store."""
    return model_store(settings) / f"{settings.model}-{version}.mar"


def temporary(settings: Settings) -> Path:
    """Return the link to the running server's temporary folder: unpacked models, sockets."""
    return state(settings) / "tmp"


def ready_marker(settings: Settings) -> Path:
    """Return the file that is touched every second while a worker is ready."""
    return state(settings) / "ready"


def management_address(settings: Settings) -> str:
    """Return the address of the running server's management: `unix:<path>` or `http://127.0.0.1:<port>`.

    Raises `FileNotFoundError` if no server was started.
    """
    return (state(settings) / "management").read_text()


def choose_management_address(settings: Settings) -> str:
    """Return a Unix socket in the server's private temporary folder.

    On Apple silicon, where TorchServe's jar has no library for Unix sockets, return a free port of loopback.
    """
    if (sys.platform, platform.machine()) != ("darwin", "arm64"):
        return f"unix:{temporary(settings).resolve() / 'management.sock'}"
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return f"http://{LOOPBACK}:{probe.getsockname()[1]}"


def unreachable_address() -> str:
    """Return an address for the gRPC management, which cannot be turned off: `BROADCAST`, on macOS `LOOPBACK`."""
    with socket.socket() as probe:
        try:
            probe.bind((BROADCAST, 0))
            probe.listen()
        except OSError:
            return LOOPBACK
    return BROADCAST


def write_config(settings: Settings, version: int) -> Path:
    """Write and return `config.properties`, for a start with `version`."""
    management = choose_management_address(settings)
    values = {
        **vars(settings),
        "management_address": management,
        "grpc_management_address": unreachable_address(),
        "model_store": model_store(settings),
        "archive": staged(settings, version).name,
        "maximum_body": MAXIMUM_BODY,
    }
    # Properties have the escapes of JSON.
    escaped = {key: json.dumps(str(value))[1:-1] for key, value in values.items()}
    (state(settings) / "management").write_text(management)
    path = state(settings) / "config.properties"
    path.write_text(Template(TEMPLATE.read_text()).substitute(escaped))
    return path
