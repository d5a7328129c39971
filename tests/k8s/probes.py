"""The probes of a pod, asked as the kubelet asks them: Podman 4.3 knows the liveness probe only, and has it run by curl
in the container.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import urllib3

from tests.k8s.podman import Podman, PodmanError

Probe = Mapping[str, Any]


def passes(podman: Podman, container: str, ports: Mapping[str | int, int], probe: Probe) -> bool:
    """Ask once. `ports` gives the port on this host for a container's port by name or number."""
    timeout: float = probe.get("timeoutSeconds", 1)
    if "httpGet" in probe:
        request = probe["httpGet"]
        address = f"http://127.0.0.1:{ports[request['port']]}{request['path']}"
        try:
            answer = urllib3.request("GET", address, timeout=timeout, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError:
            return False
        return 200 <= answer.status < 400
    if "tcpSocket" in probe:
        try:
            socket.create_connection(("127.0.0.1", ports[probe["tcpSocket"]["port"]]), timeout).close()
        except OSError:
            return False
        return True
    if "exec" in probe:
        try:
            podman("exec", container, *probe["exec"]["command"], timeout=timeout)
        except (PodmanError, subprocess.TimeoutExpired):
            return False
        return True
    raise ValueError(f"expected a probe by httpGet, tcpSocket or exec, got {sorted(probe)}")


def wait(podman: Podman, container: str, ports: Mapping[str | int, int], probe: Probe) -> bool:
    """Ask until it passes, as often as the probe allows; False where it does not in that time."""
    period: float = probe.get("periodSeconds", 10)
    deadline = (
        time.monotonic() + probe.get("initialDelaySeconds", 0) + period * probe.get("failureThreshold", 3)
    )
    while not passes(podman, container, ports, probe):
        if time.monotonic() > deadline:
            return False
        time.sleep(min(period, 1))
    return True
