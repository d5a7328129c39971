"""The interface of a platform: start the targets, stop exactly those, report their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from serving.errors import TandemError
from serving.settings import Settings
from serving.targets.base import Target


class PlatformError(TandemError):
    """The targets could not be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class TargetState:
    """How a target's server is. `memory` is the resident bytes of its whole process tree."""

    state: str
    """`running`, `starting`, `unhealthy`, `restarting`, `stopping`, `stopped` or `failed`."""
    pid: int | None = None
    uptime_seconds: float | None = None
    memory: int | None = None
    image: str = ""
    """What its container was made from; empty for a process."""


Watch = Callable[[str, str], None]
"""Called with a target's name and what goes on with it now."""


class Platform(Protocol):
    """A place where the targets run."""

    name: str

    def preparing(
        self, settings: Settings, targets: Sequence[Target], watch: Watch
    ) -> AbstractContextManager[Callable[[], None]]:
        """Raise `PlatformError` where the targets could not be started, and have what they need but a version at the
        end of the block. What it gives raises what has failed meanwhile."""

    def up(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> list[str]:
        """Start what does not run, restart what is to run differently; names what was started. Does not wait
        until they answer. Raises `PlatformError`."""

    def down(self, settings: Settings) -> bool:
        """Stop exactly what `up` started; False where nothing ran."""

    def states(self, settings: Settings) -> dict[str, TargetState]:
        """The state of every target that `up` has started, by its name; empty where nothing runs."""

    def log(self, settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        """The last lines of a target's log and, with `follow`, those that come. Raises `PlatformError`."""
