"""Checks of ports before a start."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

import psutil

from serving.platforms.base import PlatformError
from serving.settings import PREFIX, Settings


def require_ports(settings: Settings, name: str, ports: dict[str, int]) -> None:
    """Raise `PlatformError` with the holder if one of the ports of `name`, by purpose, is taken."""
    host = settings.host
    for purpose, port in ports.items():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise PlatformError(
                        f"cannot listen on {host}:{port} for {name} ({purpose}): {error.strerror}"
                    ) from error
                fields = [f for f, value in vars(settings).items() if f.endswith("_port") and value == port]
                raise PlatformError(
                    f"port {port} is wanted for {name} ({purpose}), but {holder(port)} listens on it. Stop that, "
                    f"or choose another port: {PREFIX}{[*fields, 'another_port'][0].upper()}=<port>"
                ) from None


def holder(port: int) -> str:
    """Return the holder of a port for a message."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        listens = (
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        if listens and connection.pid:
            command = "?"
            with suppress(psutil.Error):
                command = " ".join(psutil.Process(connection.pid).cmdline())
            return f"process {connection.pid} (`{command[:80]}`)"
    return "another user's process"
