"""Where the targets run."""

from __future__ import annotations

from serving.platforms.base import Platform, PlatformError
from serving.settings import Settings


def choose(settings: Settings) -> tuple[Platform, str]:
    """The platform that the settings ask for, and the reason why it was taken.

    Raises `PlatformError` where Docker is asked for and cannot be had.
    """
    from serving.platforms import engine
    from serving.platforms.process import ProcessPlatform

    if settings.platform == "process":
        return ProcessPlatform(), "TANDEM_PLATFORM asks for it"
    if settings.platform == "auto" and ProcessPlatform().states(settings):
        return ProcessPlatform(), "its targets run already"
    try:
        _, version = engine.find()
        engine.compose()
    except PlatformError as error:
        if settings.platform == "docker":
            raise
        return ProcessPlatform(), str(error)
    from serving.platforms.docker import DockerPlatform

    return DockerPlatform(), f"Docker {version} answers"
