"""The targets as containers of a local engine, started by compose.yaml, observed by the engine's SDK."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.platforms import containers, engine
from serving.platforms.base import MONITORING, PlatformError, TargetState, Watch
from serving.platforms.ports import require_ports
from serving.platforms.provision import build, built_here, make_images, tf_serving_image
from serving.server import VERSION
from serving.settings import PREFIX, Settings
from serving.targets import NAMES
from serving.targets.base import Target

if TYPE_CHECKING:
    from docker import DockerClient

COMPOSE_FILE = Path(__file__).parents[2] / "compose.yaml"
NOBODY = 10001
"""The user of the servers in their containers."""


class DockerPlatform:
    """Containers of images that are built here, or pulled."""

    name = "docker"

    def prepare(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> None:
        with engine.opened() as docker:
            _require_project(docker, settings)
        make_images(settings, [target.name for target in targets], watch)

    def up(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> list[str]:
        with engine.opened() as docker:
            before = containers.find(docker, settings)
            up = containers.running(before)
            _require_project(docker, settings)
            ports = {target.name: target.ports(settings) for target in targets}
            if settings.monitoring:
                ports[MONITORING] = {"HTTP": settings.prometheus_port}
            for name in ports.keys() - up:
                require_ports(settings, name, ports[name])
            for target in targets:
                target.configure(settings)
            _require_readable(settings)
            names = list(ports)
            image = tf_serving_image(docker, settings)
            build(settings, built_here(names, image), watch)
            # Compose needs an image for services that it does not start: any existing one.
            environment = {"TF_SERVING_IMAGE": image, "PIPELINE_IMAGE": image}
            for name in (before.keys() & {*NAMES, MONITORING}) - set(names):
                # No longer wanted, or without an artifact in this version.
                before[name].remove(force=True)
            for name in names:
                if name not in up:
                    watch(name, "starting")
            # The version is published already. With --no-deps, compose would restart servers that `docker compose up`
            # has started.
            _compose(docker, settings, environment, "up", "-d", "--no-build", "--scale=pipeline=0", *names)
            after = containers.find(docker, settings)
            ages = {name: (c.id, c.attrs["State"]["StartedAt"]) for name, c in before.items()}
            return [
                name for name, c in after.items() if ages.get(name) != (c.id, c.attrs["State"]["StartedAt"])
            ]

    def down(self, settings: Settings) -> bool:
        with engine.opened() as docker:
            if not containers.find(docker, settings):
                return False
            _compose(docker, settings, {}, "down", "--timeout", str(settings.stop_seconds))
        return True

    def states(self, settings: Settings) -> dict[str, TargetState]:
        with engine.opened() as docker:
            found = containers.find(docker, settings)
            return {name: containers.state_of(container) for name, container in found.items()}

    def log(self, settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        with engine.opened() as docker:
            container = containers.find(docker, settings).get(target)
            if container is None:
                raise PlatformError(f"{target} has no log yet; `make deploy` starts it")
            # The engine sends line by line.
            for line in container.logs(tail=lines, stream=True, follow=follow):
                yield line.decode(errors="replace")


def _require_project(docker: DockerClient, settings: Settings) -> None:
    """Raise `PlatformError` if another deployment has this project name: compose would remove its containers."""
    label = f"{containers.PROJECT}={settings.project}"
    for container in docker.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        other = containers.artifacts_of(container)
        if other != settings.artifacts:
            raise PlatformError(
                f"container {container.name} belongs to the deployment of {other or 'something else'}. "
                f"Stop that (`make down` there), or take another name here: {PREFIX}PROJECT=<name>"
            )


def _require_readable(settings: Settings) -> None:
    """Raise `PlatformError` if the user of the containers may not read a mounted file."""
    folders = [
        settings.repository,
        settings.run / "tf-serving" / "container",
        settings.run / "tfjs" / "config",
    ]
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            needed = 0o5 if path.is_dir() else 0o4
            if path.stat().st_mode & needed != needed:
                raise PlatformError(
                    f"the containers run as user {NOBODY}, who may not read {path}: `chmod -R o+rX {folder}`"
                )


def _compose(docker: DockerClient, settings: Settings, environment: dict[str, str], *arguments: str) -> None:
    started = {
        container.labels[containers.PROJECT] for container in containers.find(docker, settings).values()
    }
    project = min(started, default=settings.project)
    command = [*engine.compose(), "--project-name", project, "--file", str(COMPOSE_FILE)]
    command += ["--profile", "monitoring", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    variables.setdefault("COMPOSE_HTTP_TIMEOUT", str(engine.BUSY))
    variables |= {PREFIX + name.upper(): str(value) for name, value in vars(settings).items()}
    if settings.artifacts == COMPOSE_FILE.parent / "artifacts":
        # Compose's default: else it would restart containers that were started by hand.
        del variables[PREFIX + "ARTIFACTS"]
    variables |= environment | {"IMAGE_VERSION": VERSION, "DOCKER_HOST": engine.find()[0]}
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PlatformError(
            f"`{' '.join(command[:2])} {arguments[0]}` failed: {engine.explained(done.stderr)}"
        )
