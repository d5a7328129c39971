"""When a version is tried again that did not load: when its files have changed, or as often as the policy says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Refusal:
    """A version that did not load: what its files were, how often it was tried, and when last."""

    stamp: object
    attempts: int
    when: float


@dataclass(frozen=True)
class RetryPolicy:
    """How often a version is tried again whose files did not change."""

    retries: int = 0
    seconds: float = 60.0
    """Between attempts."""

    def retries_now(self, refusal: Refusal) -> bool:
        """Whether it is time for another attempt."""
        waited = time.monotonic() - refusal.when >= self.seconds
        return waited and refusal.attempts <= self.retries


def stamp_of(directory: Path) -> object:
    """What changes when files of the folder do."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
