"""The platforms of the targets: local processes, Docker."""

from __future__ import annotations

from serving.platforms.base import Platform, PlatformError
from serving.settings import Settings


def choose(settings: Settings) -> tuple[Platform, str]:
    """Return the platform of the settings and the reason for it. Raises `PlatformError` without a wanted Docker."""
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
