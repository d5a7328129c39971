"""What a version may hold of requests, and when one that did not load is tried again."""

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
class Limits:
    """What a batch and a queue may hold, and how often a version is tried again whose files did not change."""

    batch_rows: int = 64
    queue: int = 512
    retries: int = 0
    retry_seconds: float = 60.0

    def retries_now(self, refusal: Refusal) -> bool:
        """Whether it is time for another attempt."""
        waited = time.monotonic() - refusal.when >= self.retry_seconds
        return waited and refusal.attempts <= self.retries


def stamp_of(directory: Path) -> object:
    """What changes when files of the folder do, so that a refused version is tried again only then."""
    try:
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)
    except OSError as error:
        return str(error)
