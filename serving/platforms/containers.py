"""The containers of a deployment and their states."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from serving.platforms.base import TargetState
from serving.platforms.process import memory_of
from serving.settings import Settings

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

ARTIFACTS = "tandem.artifacts"
PROJECT, SERVICE, FOLDER = (
    f"com.docker.compose.{name}" for name in ("project", "service", "project.working_dir")
)
"""Labels of containers: ours, in compose.yaml, and those of compose."""
GIVEN_UP = 4
"""The number of starts, each ended within `SHORT_LIFE` seconds, that is a failure; the engine would go on."""
SHORT_LIFE = 20


def find(docker: DockerClient, settings: Settings) -> dict[str, Container]:
    """Return the containers that read our artifacts, by service, no matter who started them."""
    found = docker.containers.list(all=True, filters={"label": ARTIFACTS}, ignore_removed=True)
    return {
        c.labels[SERVICE]: c for c in found if SERVICE in c.labels and artifacts_of(c) == settings.artifacts
    }


def artifacts_of(container: Container) -> Path | None:
    """Return the artifacts of a container's deployment; None for other containers."""
    labels = container.labels
    if ARTIFACTS not in labels:
        return None
    return Path(labels.get(FOLDER, "/"), labels[ARTIFACTS]).resolve()


def running(containers: dict[str, Container]) -> set[str]:
    return {name for name, container in containers.items() if container.status in ("running", "restarting")}


def state_of(container: Container) -> TargetState:
    attributes: dict[str, Any] = container.attrs["State"]
    image = container.attrs["Config"]["Image"]
    state = word(container)
    if not attributes["Running"] or attributes["Restarting"]:
        return TargetState(state, image=image)
    uptime = (datetime.now(UTC) - datetime.fromisoformat(attributes["StartedAt"])).total_seconds()
    return TargetState(state, attributes["Pid"], uptime, _memory(container), image)


def _memory(container: Container) -> int | None:
    """Return the resident bytes of the processes; None if they are in a virtual machine (Docker Desktop).

    The engine's statistics take a second for each container.
    """
    pid: int = container.attrs["State"]["Pid"]
    try:
        if str(container.id) in Path(f"/proc/{pid}/cgroup").read_text():
            return memory_of(pid)
    except (OSError, psutil.Error):
        pass
    return None


def word(container: Container) -> str:
    attributes: dict[str, Any] = container.attrs["State"]
    if attributes["Restarting"] or attributes["Status"] == "exited":
        lived = (
            datetime.fromisoformat(attributes["FinishedAt"]) - datetime.fromisoformat(attributes["StartedAt"])
        ).total_seconds()
        if container.attrs["RestartCount"] >= GIVEN_UP and lived < SHORT_LIFE:
            return "failed"
        return "restarting" if attributes["Restarting"] else "stopped"
    if attributes["Status"] == "running":
        health = attributes.get("Health", {}).get("Status", "healthy")
        return {"healthy": "running", "starting": "starting"}.get(health, "unhealthy")
    return {"created": "stopped", "removing": "stopping", "paused": "stopped"}.get(
        attributes["Status"], "failed"
    )
