"""The images of a deployment: TensorFlow's own if it can be pulled, others built here."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving import targets
from serving.platforms import containers, images
from serving.platforms.base import MONITORING, PlatformError, Watch
from serving.platforms.engine import opened
from serving.settings import PREFIX, Settings

if TYPE_CHECKING:
    from docker import DockerClient


def make_images(settings: Settings, wanted: Sequence[str], watch: Watch) -> None:
    """Pull or build the images of targets, and check that a container starts. Raises `PlatformError`."""
    names = [*wanted, *([MONITORING] if settings.monitoring else [])]
    with opened() as docker:
        running = containers.running(containers.find(docker, settings))
        if "tf-serving" not in running:
            _pull_tf_serving(docker, settings, watch)
        image = tf_serving_image(docker, settings)
        if not running:
            images.require_startable(docker, image)
        build(settings, built_here(names, image), watch)


def built_here(names: Sequence[str], tf_serving: str) -> list[str]:
    """Return the images of services of compose.yaml that are built here."""
    ours = [name for name in names if not (name == "tf-serving" and tf_serving == images.TF_SERVING)]
    return list(dict.fromkeys(targets.load(n).container.image if n in targets.NAMES else n for n in ours))


def tf_serving_image(docker: DockerClient, settings: Settings) -> str:
    """Return TensorFlow's own image if it is here, else ours."""
    ours, original = images.reference("tf-serving"), images.TF_SERVING
    if settings.tf_serving == "embedded":
        return ours
    running = containers.find(docker, settings).get("tf-serving")
    if settings.tf_serving == "auto" and running and running.attrs["Config"]["Image"] == ours:
        return ours
    return original if settings.tf_serving == "original" or images.find(docker, original) else ours


def _pull_tf_serving(docker: DockerClient, settings: Settings, watch: Watch) -> None:
    """Pull TensorFlow's own image if it is wanted."""
    from docker.errors import APIError

    original = images.TF_SERVING
    if settings.tf_serving == "embedded" or images.find(docker, original):
        return
    watch("tf-serving", f"pulling {original}")
    try:
        docker.images.pull(original)
    except APIError as error:
        if settings.tf_serving == "original":
            raise PlatformError(
                f"{original} cannot be pulled: {error.explanation}; {PREFIX}TF_SERVING=embedded takes ours"
            ) from error
        reason = str(error.explanation).split(": ")[-1].strip()
        watch("tf-serving", f"embedded server, as {original} cannot be pulled: {reason}")


def build(settings: Settings, names: Sequence[str], watch: Watch) -> None:
    """Build images that are missing or older than their sources; by default all. Raises `PlatformError`."""
    unknown = sorted(set(names) - set(images.IMAGES))
    if unknown:
        raise PlatformError(f"there is no image {unknown[0]!r}; there are: {', '.join(images.IMAGES)}")
    with opened() as docker:
        bases: dict[str, str] = {}
        for name in names or images.IMAGES:
            if name == "models" and not names and not any(settings.repository.glob("*.json")):
                watch(name, "left out: nothing is published yet")
                continue
            if images.is_current(docker, settings, name):
                continue
            wanted = images.base_of(name)
            if wanted.image not in bases:
                log, report = settings.logs / "base-image.log", functools.partial(watch, "base")
                bases[wanted.image] = images.find_base(docker, log, report, wanted)
                images.require_startable(docker, bases[wanted.image])
            started = time.monotonic()
            images.build(docker, settings, name, bases[wanted.image], functools.partial(watch, name))
            watch(name, f"built in {time.monotonic() - started:.0f} s")
