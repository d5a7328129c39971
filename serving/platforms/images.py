"""The images of docker/, built if they are missing or older than their sources.

The stages before a Dockerfile's `FROM dependencies` are an image named by the digest of its sources. Only that one
needs wheels, fetched here with pip's settings and certificates; after a change of our code a build takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from serving import targets
from serving.platforms import command, wheels
from serving.platforms.base import PlatformError
from serving.platforms.builder import Report, docker_build, environment, told
from serving.platforms.contexts import (
    ROOT,
    ImageError,
    context_files,
    digest,
    dockerfile,
    fill,
    plain,
    published,
    stages,
)
from serving.platforms.engine import has_buildkit
from serving.platforms.wheels import BOOKWORM, TRIXIE, Base
from serving.server import VERSION
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.web.install import install

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

IMAGES = (
    *dict.fromkeys(targets.load(name).container.image for name in targets.NAMES),
    "models",
    "pipeline",
    "prometheus",
    "tfx",
)
REGISTRY = "tandem.invalid"
"""The registry in the images' names until a team sets its own; RFC 6761 reserves the domain."""
TF_SERVING = f"tensorflow/serving:{metadata.version('tensorflow-serving-api')}"
"""TensorFlow's own server, of the pinned release of TensorFlow."""
FETCHED = "docker/builder/fetched"
"""The folder of fetched wheels in a build context."""
LABEL, BASE_LABEL = "tandem.context", "tandem.base"


def reference(name: str, settings: Settings | None = None) -> str:
    """Return the name and tag of one of `IMAGES`; `models` is tagged by the published version of `settings`."""
    if name == "models" and settings is not None:
        return f"{REGISTRY}/models:{settings.model}-{published(settings)}"
    return f"{REGISTRY}/{name}:{VERSION}"


def base_of(name: str) -> Base:
    """Return the base of an image: ml-metadata and TFDV have no wheels for Debian 12."""
    return TRIXIE if name == "tfx" else BOOKWORM


def find(engine: DockerClient, name: str) -> Image | None:
    """Return the engine's image of a name, if any."""
    from docker.errors import ImageNotFound

    try:
        return engine.images.get(name)
    except ImageNotFound:
        return None


def find_base(engine: DockerClient, log: Path, report: Report, base: Base = BOOKWORM) -> str:
    """Return the base of images: Debian's image if it is here or can be pulled, else one made of Debian's packages.

    Raises `ImageError` with the end of `log`.
    """
    from docker.errors import APIError

    for name in (base.image, base.pinned):
        if find(engine, name) is not None:
            return name
    report(f"pulling {base.image}")
    try:
        engine.images.pull(base.image.split(":", maxsplit=1)[0], tag=base.digest)
    except APIError as error:
        report(f"{base.image} cannot be pulled: {error.explanation}")
        report("making it from Debian's packages (usually 60 s)")
    else:
        report("ready")
        return base.pinned
    with told(log):
        if command.run([ROOT / "docker" / "base-image", base.image], log, env=environment()):
            raise ImageError("docker/base-image failed")
    report("built from Debian's packages")
    return base.image


def require_startable(engine: DockerClient, image: str) -> None:
    """Raise `PlatformError` if the engine starts no container of an image; a missing image is skipped."""
    from docker.errors import APIError

    if find(engine, image) is None:
        return
    container = engine.containers.create(image, ["/bin/true"], entrypoint="", network_disabled=True)
    try:
        container.start()
    except APIError as error:
        raise PlatformError(
            f"the container engine answers but starts no container: {error.explanation}. "
            "PLATFORM=process goes without one"
        ) from error
    finally:
        container.remove(force=True)


def is_current(engine: DockerClient, settings: Settings, name: str) -> bool:
    """Return True if the image exists and its sources are unchanged.

    An image built by hand has no digest: it is current if it is younger than its sources.
    """
    image = find(engine, reference(name, settings))
    if image is None:
        return False
    text = dockerfile(name)
    files = context_files(settings, text)
    if LABEL not in image.labels:
        changed = max(path.stat().st_mtime for path in files.values())
        return datetime.fromtimestamp(changed, UTC) < datetime.fromisoformat(image.attrs["Created"])
    base = find(engine, base_of(name).image) or find(engine, base_of(name).pinned)
    # A removed base is no reason to build.
    base_id = str(base.id) if base else image.labels.get(BASE_LABEL, "")
    return str(image.labels[LABEL]) == digest(text, files, base_id, machine(engine))


def build(engine: DockerClient, settings: Settings, name: str, base: str, report: Report) -> None:
    """Build an image on a base of `find_base`; logs to `settings.logs / build-<name>.log`. Raises `ImageError`."""
    log = settings.logs / f"build-{name}.log"
    build = Build(engine, settings, name, base, report, log)
    build.context.parent.mkdir(parents=True, exist_ok=True)
    with build.context.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another command that builds it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with told(log):
                build.run()
        finally:
            shutil.rmtree(build.context, ignore_errors=True)


@dataclass(frozen=True)
class Build:
    """The build of an image."""

    engine: DockerClient
    settings: Settings
    name: str
    base: str
    report: Report
    log: Path

    @property
    def context(self) -> Path:
        return self.settings.artifacts / "docker" / self.name

    @cached_property
    def base_id(self) -> str:
        return str(self.engine.images.get(self.base).id)

    def run(self) -> None:
        """Build the image, and remove its predecessor."""
        tag, text = reference(self.name, self.settings), dockerfile(self.name)
        old = find(self.engine, tag)
        labels = {LABEL: self.digest(text), BASE_LABEL: self.base_id}
        head, tail = stages(text)
        if tail:
            text = f"FROM {self.dependencies(head)}\n{tail}"
        self.fill(text)
        arguments = {"BASE": self.base, "VERSION": VERSION, "REVISION": _revision()}
        if self.name == "models":
            arguments |= {"MODEL": self.settings.model, "MODEL_VERSION": str(published(self.settings))}
        options = [f"--label={name}={value}" for name, value in labels.items()]
        docker_build(self.context, self.log, tag, arguments, self.report, *options)
        if old is not None and old != find(self.engine, tag):
            self.remove(str(old.id))

    def dependencies(self, text: str) -> str:
        """Return the image of the stages before our code, built if it is missing."""
        repository = f"{REGISTRY}/{self.name}-dependencies"
        tag = f"{repository}:{self.digest(text)}"
        if find(self.engine, tag) is not None:
            return tag
        files = self.fill(text)
        self.report("fetching wheels")
        pins = [
            line for file in files.values() if file.suffix == ".txt" for line in file.read_text().splitlines()
        ]
        sdists = files.get(f"docker/{self.name}/sdists")
        unwheeled = sdists.read_text().split() if sdists else []
        arguments, fetched = {"BASE": self.base}, self.context / FETCHED
        if wheels.fetch(pins, machine(self.engine), fetched, self.log, base_of(self.name), unwheeled):
            arguments |= {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
        if "serving/web/package-lock.json" in files:
            try:
                scripts = install(self.settings.artifacts / "web")
            except TargetError as error:
                raise ImageError(str(error)) from error
            shutil.copytree(scripts, fetched / scripts.name)
        older = self.engine.images.list(name=repository)
        docker_build(self.context, self.log, tag, arguments, self.report, "--target=dependencies")
        for image in older:
            for other in image.tags:
                self.remove(other)
        return tag

    def digest(self, text: str) -> str:
        """Return the digest of the sources of a Dockerfile."""
        return digest(text, context_files(self.settings, text), self.base_id, machine(self.engine))

    def fill(self, text: str) -> dict[str, Path]:
        """Write the build context of a Dockerfile for the installed builder; returns the files that it copies."""
        files = context_files(self.settings, text)
        fill(self.context, self.name, text if has_buildkit() else plain(text), files)
        return files

    def remove(self, name: str) -> None:
        """Remove an image unless it is used."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.engine.images.remove(name)


def machine(engine: DockerClient) -> str:
    """Return the engine's machine as in the tags of wheels."""
    name: str = engine.version()["Arch"]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _revision() -> str:
    """Return the current commit, marked if there are changes; "" outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""
