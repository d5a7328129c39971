"""The targets as containers on a local engine: docker/compose.yaml says how, the engine's SDK tells how they are."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from serving.platforms import engine, images
from serving.platforms.base import PlatformError, TargetState, Watch
from serving.platforms.ports import require_ports
from serving.platforms.process import memory_of
from serving.settings import PREFIX, Settings
from serving.targets.base import Target

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

COMPOSE_FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
IMAGES = {"tfjs": "web"}
"""The targets whose image has another name."""
MONITORING = "prometheus"
NOBODY = 10001
"""Who the servers are in their containers where root deploys."""
GIVEN_UP = 4
"""So many starts that each ended within seconds are a failure, although the engine would go on for ever."""
SHORT_LIFE = 20
FULL = "no space left on device"


class DockerPlatform:
    """Containers; built here where they cannot be had otherwise."""

    name = "docker"

    def up(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> list[str]:
        with _engine() as docker:
            before = _containers(docker, settings)
            _require_project(docker, settings)
            names = [target.name for target in targets] + ([MONITORING] if settings.monitoring else [])
            up = {name for name, container in before.items() if container.status in ("running", "restarting")}
            for target in targets:
                if target.name not in up:
                    require_ports(settings, target.name, target.ports(settings))
            if settings.monitoring and MONITORING not in up:
                require_ports(settings, MONITORING, {"HTTP": settings.prometheus_port})
            for target in targets:
                target.configure(settings)
            environment = _environment(docker, settings, watch)
            _require_readable(settings, environment["RUN_AS"])
            original = environment["TF_SERVING_IMAGE"] == images.TF_SERVING
            built_here = [IMAGES.get(name, name) for name in names if not (name == "tf-serving" and original)]
            build(settings, built_here, watch)
            if MONITORING in before and not settings.monitoring:
                before[MONITORING].remove(force=True)
            for name in names:
                if name not in up:
                    watch(name, "starting")
            _compose(settings, environment, "up", "-d", "--no-build", *names)
            after = _containers(docker, settings)
            ages = {name: (c.id, c.attrs["State"]["StartedAt"]) for name, c in before.items()}
            return [
                name for name, c in after.items() if ages.get(name) != (c.id, c.attrs["State"]["StartedAt"])
            ]

    def down(self, settings: Settings) -> bool:
        with _engine() as docker:
            if not _containers(docker, settings):
                return False
            _compose(settings, {"RUN_AS": "", "CPUS": "1"}, "down", "--timeout", str(settings.stop_seconds))
        return True

    def states(self, settings: Settings) -> dict[str, TargetState]:
        with _engine() as docker:
            found = _containers(docker, settings)
            return {name: _state(container) for name, container in found.items()}

    def log(self, settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        with _engine() as docker:
            container = _containers(docker, settings).get(target)
            if container is None:
                raise PlatformError(f"{target} has no log yet; `make deploy` starts it")
            rest = ""
            for chunk in container.logs(tail=lines, stream=True, follow=follow):
                *whole, rest = (rest + chunk.decode(errors="replace")).split("\n")
                yield from (line + "\n" for line in whole)
            if rest:
                yield rest


@contextlib.contextmanager
def _engine() -> Iterator[DockerClient]:
    """The engine; what it refuses is a `PlatformError` with its own words."""
    client = engine.client()
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield client
    except (DockerException, RequestException) as error:
        raise PlatformError(f"the container engine refused: {_explained(str(error))}") from error
    finally:
        client.close()


def _containers(docker: DockerClient, settings: Settings) -> dict[str, Container]:
    """Our containers, by target."""
    labels = [f"com.docker.compose.project={settings.project}", f"tandem.artifacts={settings.artifacts}"]
    found = docker.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
    return {container.labels["com.docker.compose.service"]: container for container in found}


def _require_project(docker: DockerClient, settings: Settings) -> None:
    """Two deployments under one project name would take each other's containers away."""
    label = f"com.docker.compose.project={settings.project}"
    for container in docker.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        other = container.labels.get("tandem.artifacts")
        if other != str(settings.artifacts):
            raise PlatformError(
                f"container {container.name} belongs to the deployment of {other or 'something else'}. "
                f"Stop that (`make down` there), or take another name here: {PREFIX}PROJECT=<name>"
            )


def _environment(docker: DockerClient, settings: Settings, watch: Watch) -> dict[str, str]:
    """What compose.yaml is filled with beside the settings."""
    return {
        "RUN_AS": container_user(docker),
        "CPUS": str(min(2, docker.info()["NCPU"])),
        "TF_SERVING_IMAGE": _tf_serving_image(docker, settings, watch),
    }


def container_user(docker: DockerClient) -> str:
    """Who has to be the user in a container, so that it can read what this one made: `<uid>:<gid>`."""
    if any("name=rootless" in option for option in docker.info().get("SecurityOptions") or []):
        # Root in there is the user out here.
        return "0:0"
    return f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"


def _tf_serving_image(docker: DockerClient, settings: Settings, watch: Watch) -> str:
    """TensorFlow's own image where it is here or can be pulled, else ours."""
    from docker.errors import APIError, ImageNotFound

    ours, original = images.reference("tf-serving"), images.TF_SERVING
    if settings.tf_serving == "embedded":
        return ours
    with contextlib.suppress(ImageNotFound):
        docker.images.get(original)
        return original
    running = _containers(docker, settings).get("tf-serving")
    if settings.tf_serving == "auto" and running and running.attrs["Config"]["Image"] == ours:
        # What could not be pulled a minute ago is not worth another wait.
        return ours
    watch("tf-serving", f"pulling {original}")
    try:
        docker.images.pull(original)
    except APIError as error:
        reason = str(error.explanation).split(": ")[-1].strip()
        if settings.tf_serving == "original":
            raise PlatformError(
                f"{original} cannot be pulled: {error.explanation}; {PREFIX}TF_SERVING=embedded takes ours"
            ) from error
        watch("tf-serving", f"embedded server, as {original} cannot be pulled: {reason}")
        return ours
    return original


def build(settings: Settings, names: Sequence[str], watch: Watch) -> None:
    """Make those of the images that are missing or older than their sources; all where none is named."""
    unknown = sorted(set(names) - set(images.IMAGES))
    if unknown:
        raise PlatformError(f"there is no image {unknown[0]!r}; there are: {', '.join(images.IMAGES)}")
    with _engine() as docker:
        bases: dict[str, str] = {}
        for name in names or images.IMAGES:
            if name == "models" and not names and not any(settings.repository.glob("*.json")):
                watch(name, "left out: nothing is published yet")
                continue
            if images.is_current(docker, settings, name):
                continue
            wanted = images.base_of(name)
            if wanted.image not in bases:
                bases[wanted.image] = images.find_base(docker, lambda line: watch("base", line), wanted)
            started = time.monotonic()
            images.build(docker, settings, name, bases[wanted.image], functools.partial(watch, name))
            watch(name, f"built in {time.monotonic() - started:.0f} s")


def _require_readable(settings: Settings, run_as: str) -> None:
    """Raise `PlatformError` where the user of the containers, if it is another one, may not read what is mounted."""
    if os.geteuid() != 0 or run_as == "0:0":
        return
    folders = [
        settings.repository,
        settings.run / "tf-serving",
        settings.run / "tfjs" / "config",
    ]
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            needed = 0o5 if path.is_dir() else 0o4
            if path.stat().st_mode & needed != needed:
                raise PlatformError(
                    f"the containers run as user {NOBODY}, who may not read {path}: `chmod -R o+rX {folder}`"
                )


def _compose(settings: Settings, environment: dict[str, str], *arguments: str) -> None:
    command = [*engine.compose(), "--project-name", settings.project, "--file", str(COMPOSE_FILE)]
    command += ["--profile", "monitoring", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    variables.setdefault("COMPOSE_HTTP_TIMEOUT", str(engine.BUSY))
    variables |= {PREFIX + name.upper(): str(value) for name, value in vars(settings).items()}
    variables |= environment | {"IMAGE_VERSION": images.version(), "DOCKER_HOST": engine.find()[0]}
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PlatformError(f"`{' '.join(command[:2])} {arguments[0]}` failed: {_explained(done.stderr)}")


def _explained(text: str) -> str:
    """The end of what was said, with what to do about a full disk."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    said = "\n  ".join(lines[-8:])
    return f"{said}\nThe engine's disk is full: `docker system prune` frees some." if FULL in text else said


def _state(container: Container) -> TargetState:
    attributes: dict[str, Any] = container.attrs["State"]
    image = container.attrs["Config"]["Image"]
    state = _word(container)
    if not attributes["Running"] or attributes["Restarting"]:
        return TargetState(state, image=image)
    uptime = (datetime.now(UTC) - _moment(attributes["StartedAt"])).total_seconds()
    return TargetState(state, attributes["Pid"], uptime, _memory(container), image)


def _memory(container: Container) -> int | None:
    """Resident bytes, as for a process; None where the engine is in a virtual machine (Docker Desktop).

    The engine's own statistics take a second a container.
    """
    pid: int = container.attrs["State"]["Pid"]
    try:
        if str(container.id) in Path(f"/proc/{pid}/cgroup").read_text():
            return memory_of(pid)
    except (OSError, psutil.Error):
        pass
    return None


def _word(container: Container) -> str:
    attributes: dict[str, Any] = container.attrs["State"]
    if attributes["Restarting"] or attributes["Status"] == "exited":
        lived = (_moment(attributes["FinishedAt"]) - _moment(attributes["StartedAt"])).total_seconds()
        if container.attrs["RestartCount"] >= GIVEN_UP and lived < SHORT_LIFE:
            return "failed"
        return "restarting" if attributes["Restarting"] else "stopped"
    if attributes["Status"] == "running":
        health = attributes.get("Health", {}).get("Status", "healthy")
        return {"healthy": "running", "starting": "starting"}.get(health, "unhealthy")
    return {"created": "stopped", "removing": "stopping", "paused": "stopped"}.get(
        attributes["Status"], "failed"
    )


def _moment(text: str) -> datetime:
    """A moment in the engine's words, whose nanoseconds Python 3.11 does not read."""
    return datetime.fromisoformat(text[:19] + "+00:00")
