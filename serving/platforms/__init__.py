"""Where the targets run."""

from __future__ import annotations

from serving.platforms.base import Platform
from serving.settings import Settings


def choose(settings: Settings) -> tuple[Platform, str]:
    """The platform that the settings ask for, and the reason why it was taken."""
    from serving.platforms.process import ProcessPlatform

    if settings.platform == "auto":
        return ProcessPlatform(), "the only platform so far: local processes, no container engine needed"
    return ProcessPlatform(), "TANDEM_PLATFORM asks for it"
