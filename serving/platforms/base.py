"""The interface of a platform: start and stop targets, report their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.errors import TandemError
from serving.settings import Settings
from serving.targets.base import Target

MONITORING = "prometheus"
"""The service beside the targets."""


class PlatformError(TandemError):
    """Targets could not be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class TargetState:
    """The state of a target's server. `memory` is the resident bytes of its process tree."""

    state: str
    """`running`, `starting`, `unhealthy`, `restarting`, `stopping`, `stopped` or `failed`."""
    pid: int | None = None
    uptime_seconds: float | None = None
    memory: int | None = None
    image: str = ""
    """The image of its container; empty for a process."""


Watch = Callable[[str, str], None]
"""Called with a target's name and its current step."""


class Platform(Protocol):
    """A platform."""

    name: str

    def prepare(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> None:
        """Check the platform, and make all that the targets need but a version; `up` checks the ports.

        Raises `PlatformError`.
        """

    def up(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> list[str]:
        """Start targets, and restart those with a changed configuration; returns their names without waiting until
        they are ready. Raises `PlatformError`."""

    def down(self, settings: Settings) -> bool:
        """Stop all that `up` has started; returns False if nothing ran."""

    def states(self, settings: Settings) -> dict[str, TargetState]:
        """Return the state of every target that `up` has started, by name."""

    def log(self, settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        """Yield the last lines of a target's log and, with `follow`, new ones. Raises `PlatformError`."""
