"""Busy ports, found before a server stumbles over them."""

from __future__ import annotations

import errno
import socket

import psutil

from serving.platforms.base import PlatformError
from serving.settings import PREFIX, Settings


def require_ports(settings: Settings, name: str, ports: dict[str, int]) -> None:
    """Raises `PlatformError` where one of the ports of `name`, by purpose, is taken."""
    for purpose, port in ports.items():
        field = next(
            (f for f, value in vars(settings).items() if f.endswith("_port") and value == port),
            "another_port",
        )
        require_free(settings.host, port, f"{name} ({purpose})", PREFIX + field.upper())


def require_free(host: str, port: int, purpose: str, setting: str) -> None:
    """Raises `PlatformError` naming the holder where `port` is taken. `purpose` says what it is wanted for."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: a port in TIME_WAIT is free, one that somebody listens on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PlatformError(
                    f"cannot listen on {host}:{port} for {purpose}: {error.strerror}"
                ) from error
            raise PlatformError(
                f"port {port} is wanted for {purpose}, but {holder(port)} listens on it. "
                f"Stop that, or choose another port: {setting}=<port>"
            ) from None


def holder(port: int) -> str:
    """Who listens on a port, in words."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        listens = (
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        if listens and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "?"
            return f"process {connection.pid} (`{command[:80]}`)"
    return "another user's process"
