"""When to try a version again that did not load."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Refusal:
    """A version that did not load: the stamp of its files, and its attempts so far."""

    stamp: object
    attempts: int
    when: float


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try a version again whose files did not change."""

    retries: int = 0
    seconds: float = 60.0
    """Between attempts."""

    def retries_now(self, refusal: Refusal) -> bool:
        """Return True if it is time for another attempt."""
        waited = time.monotonic() - refusal.when >= self.seconds
        return waited and refusal.attempts <= self.retries


def stamp_of(directory: Path) -> object:
    """Return a value that differs when files of the folder do."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
