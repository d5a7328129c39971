"""TorchServe's configuration: properties, logging, folders, addresses of management."""

from __future__ import annotations

import json
import platform
import socket
import sys
from pathlib import Path

from serving.settings import Settings

LOOPBACK = "127.0.0.1"
BROADCAST = "127.255.255.255"
"""Loopback's broadcast address: Linux lets a server listen on it, and refuses all connections to it."""
MAXIMUM_BODY = 8 * 1024 * 1024
"""Bytes: 2,600 pictures as .npy. A larger request is answered 413, and too many large ones at once 507. With 16 MiB
in a heap of 256, two dozen at once left a server that answered 507 for ever."""

LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <Console name="stderr" target="SYSTEM_ERR">
      <PatternLayout pattern="%d{ISO8601} %-5p %c{1} - %m%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <!-- The access log costs a line a request. -->
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="org.pytorch.serve.wlm" level="warn"/>
    <Root level="info">
      <AppenderRef ref="stderr"/>
    </Root>
  </Loggers>
</Configuration>
"""


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
    """Write `config.properties` and `log4j2.xml` for a start with `version`; returns the former."""
    host, management = settings.host, choose_management_address(settings)
    properties = {
        "inference_address": f"http://{host}:{settings.torchserve_rest_port}",
        "management_address": management,
        "metrics_address": f"http://{host}:{settings.torchserve_metrics_port}",
        "grpc_inference_address": host,
        "grpc_inference_port": settings.torchserve_grpc_port,
        "grpc_management_address": unreachable_address(),
        "grpc_management_port": 0,
        "model_store": model_store(settings),
        "load_models": f"{settings.model}={staged(settings, version).name}",
        "default_workers_per_model": 1,
        # No address is allowed: models are registered by the name of a file in the model store.
        "allowed_urls": "(?!)",
        # Inference would need tokens, too. The documented name, `disable_token_auth`, is ignored.
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "max_request_size": MAXIMUM_BODY,
        "max_response_size": MAXIMUM_BODY,
        # The handler parses JSON: faster, and with clear errors.
        "decode_input_request": "false",
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
        "unregister_model_timeout": settings.stop_seconds,
        "number_of_gpu": 0,
    }
    folder = state(settings)
    (folder / "management").write_text(management)
    (folder / "log4j2.xml").write_text(LOGGING)
    path = folder / "config.properties"
    # Properties have the escapes of JSON.
    escaped = {key: json.dumps(str(value))[1:-1] for key, value in properties.items()}
    path.write_text("".join(f"{key}={value}\n" for key, value in escaped.items()))
    return path
