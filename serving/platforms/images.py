"""The images of docker/, built where they are missing or older than their sources.

All before a Dockerfile's `FROM dependencies` is an image of its own, named by the digest of what is in it: only
that one needs wheels, fetched here, where pip has its settings and certificates. After a change of our own code
a build sends a few files and takes seconds, whatever the builder.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from serving import targets
from serving.platforms import dockerfiles, wheels
from serving.platforms.base import PlatformError
from serving.platforms.builder import (
    BUILD_LABEL,
    Report,
    docker_build,
    end,
    environment,
    explained,
    for_builder,
)
from serving.platforms.contexts import ROOT, ImageError, context_files, digest, dockerfile, fill, published
from serving.platforms.wheels import BOOKWORM, TRIXIE, Base
from serving.server import VERSION
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.web.install import install

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

__all__ = ["IMAGES", "TF_SERVING", "ImageError", "build", "find_base", "is_current", "reference", "version"]

IMAGES = (
    *dict.fromkeys(targets.load(name).container.image for name in targets.NAMES),
    "models",
    "pipeline",
    "prometheus",
    "tfx",
)
REGISTRY = "tandem.invalid"
"""Where images come from until a team names its registry: RFC 6761 reserves the name, so no registry answers for it."""
TF_SERVING = f"tensorflow/serving:{metadata.version('tensorflow-serving-api')}"
"""TensorFlow's own server, of the release that its API and the TensorFlow that trains are pinned to."""
FETCHED = "docker/builder/fetched"
"""Where a build finds what was fetched for it."""
LABEL, BASE_LABEL = "tandem.context", "tandem.base"


def version() -> str:
    """The project's version, which is every image's tag."""
    return VERSION


def reference(name: str, settings: Settings | None = None) -> str:
    """The name and tag of one of `IMAGES`. That of `models` is the version that is published in `settings`."""
    if name == "models" and settings is not None:
        return f"{REGISTRY}/models:{settings.model}-{published(settings)}"
    return f"{REGISTRY}/{name}:{version()}"


def base_of(name: str) -> Base:
    """What an image is built on: ml-metadata and TFDV have no wheels for Debian 12."""
    return TRIXIE if name == "tfx" else BOOKWORM


def find_base(engine: DockerClient, report: Report, base: Base = BOOKWORM) -> str:
    """What images are built on: Debian's image if it is here or can be pulled, else one made of Debian's
    packages. Raises `ImageError` where none can be had."""
    from docker.errors import APIError

    pinned = f"{base.image}@{base.digest}"
    for name in (base.image, pinned):
        if _image(engine, name) is not None:
            return name
    report(f"pulling {base.image}")
    try:
        engine.images.pull(base.image.split(":", maxsplit=1)[0], tag=base.digest)
    except APIError as error:
        report(f"{base.image} cannot be pulled: {error.explanation}")
        report("making it from Debian's packages (usually 60 s)")
    else:
        report("ready")
        return pinned
    done = subprocess.run(
        [ROOT / "docker" / "base-image", base.image],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ImageError(f"docker/base-image failed:\n{end(done.stdout + done.stderr)}")
    report("built from Debian's packages")
    return base.image


def is_here(engine: DockerClient, name: str) -> bool:
    """Whether the engine has an image of that name."""
    return _image(engine, name) is not None


def require_startable(engine: DockerClient, image: str) -> None:
    """Raise `PlatformError` where the engine answers, and yet starts no container. An image that is not here proves
    nothing."""
    from docker.errors import APIError

    if not is_here(engine, image):
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
    """Whether the image is there, with the content that its sources would give now.

    One that was built by hand has no digest of them: it is current while it is younger than they are.
    """
    image = _image(engine, reference(name, settings))
    if image is None:
        return False
    text = dockerfile(name)
    files = context_files(settings, text)
    if LABEL not in image.labels:
        created: str = image.attrs["Created"]
        changed = max(path.stat().st_mtime for path in files.values())
        return datetime.fromtimestamp(changed, UTC) < datetime.fromisoformat(created[:19] + "+00:00")
    wanted = base_of(name)
    base = _image(engine, wanted.image) or _image(engine, f"{wanted.image}@{wanted.digest}")
    # A base that was removed since is no reason to build.
    base_id = str(base.id) if base else image.labels.get(BASE_LABEL, "")
    return str(image.labels[LABEL]) == digest(text, files, base_id, _machine(engine))


def build(engine: DockerClient, settings: Settings, name: str, base: str, report: Report) -> bool:
    """Build an image; False where it is current. `base` is what `find_base` gave for it. The output goes to
    `settings.logs / build-<name>.log`. Raises `ImageError`."""
    if is_current(engine, settings, name):
        return False
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"build-{name}.log"
    log.write_text("")
    tag = reference(name, settings)
    old = _image(engine, tag)
    base_id, machine, text = str(engine.images.get(base).id), _machine(engine), dockerfile(name)
    build_id = uuid.uuid4().hex
    arguments = {"BASE": base}
    with explained(log), _context(settings, name) as context, _builders_removed(engine, build_id):
        files = context_files(settings, text)
        labels = {LABEL: digest(text, files, base_id, machine), BASE_LABEL: base_id}
        head, tail = dockerfiles.stages(text)
        if tail:
            dependencies = _dependencies(
                engine, settings, name, head, arguments, context, log, report, build_id
            )
            text = f"FROM {dependencies}\n{tail}"
            files = context_files(settings, text)
        if name == "models":
            arguments |= {"MODEL": settings.model, "MODEL_VERSION": str(published(settings))}
        fill(context, name, for_builder(text, build_id), files)
        arguments |= {"VERSION": version(), "REVISION": _revision()}
        docker_build(context, log, tag, arguments, labels, report)
    if old is not None and old != _image(engine, tag):
        _remove(engine, str(old.id))
    return True


def _dependencies(
    engine: DockerClient,
    settings: Settings,
    name: str,
    text: str,
    arguments: dict[str, str],
    context: Path,
    log: Path,
    report: Report,
    build_id: str,
) -> str:
    """The image of what comes before our own code; built where it is missing."""
    files = context_files(settings, text)
    machine = _machine(engine)
    base_id = str(engine.images.get(arguments["BASE"]).id)
    tag = f"{REGISTRY}/{name}-dependencies:{digest(text, files, base_id, machine)}"
    if _image(engine, tag) is not None:
        return tag
    fill(context, name, for_builder(text, build_id), files)
    report("fetching wheels")
    pins = [
        line for file in files.values() if file.suffix == ".txt" for line in file.read_text().splitlines()
    ]
    sdists = files.get(f"docker/{name}/sdists")
    unwheeled = sdists.read_text().split() if sdists else []
    try:
        if wheels.fetch(pins, machine, context / FETCHED, log, base_of(name), unwheeled):
            arguments = arguments | {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
        if "serving/web/package-lock.json" in files:
            scripts = install(settings.artifacts / "web")
            shutil.copytree(scripts, context / FETCHED / scripts.name)
    except (wheels.WheelError, TargetError) as error:
        raise ImageError(str(error)) from error
    older = engine.images.list(name=tag.split(":", maxsplit=1)[0])
    docker_build(context, log, tag, arguments, {}, report, "--target=dependencies")
    for image in older:
        for other in image.tags:
            _remove(engine, other)
    return tag


@contextlib.contextmanager
def _context(settings: Settings, name: str) -> Iterator[Path]:
    """A folder for the build context, which is gone afterwards."""
    folder = settings.artifacts / "docker" / name
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _image(engine: DockerClient, name: str) -> Image | None:
    from docker.errors import ImageNotFound

    try:
        return engine.images.get(name)
    except ImageNotFound:
        return None


def _remove(engine: DockerClient, name: str) -> None:
    """Remove what a newer image replaced, unless something still uses it."""
    from docker.errors import APIError

    with contextlib.suppress(APIError):
        engine.images.remove(name)


@contextlib.contextmanager
def _builders_removed(engine: DockerClient, build_id: str) -> Iterator[None]:
    """Removes, afterwards, the stages that a build's others have copied from: the legacy builder leaves them, gigabytes
    without a name. Those of a build that goes on elsewhere stay.
    """
    from docker.errors import APIError
    from requests import RequestException

    try:
        yield
    finally:
        with contextlib.suppress(APIError, RequestException):
            engine.images.prune({"dangling": True, "label": f"{BUILD_LABEL}={build_id}"})


def _machine(engine: DockerClient) -> str:
    machine: str = engine.version()["Arch"]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _revision() -> str:
    """The commit that is built, marked where it was changed; "" outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""
