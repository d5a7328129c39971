"""Parts that all data sources share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from serving.errors import TandemError

SECONDS = 600
"""Limit, in seconds, of a command that fetches."""
Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come, and the bytes that will come (0: unknown)."""


class DataError(TandemError):
    """The data could not be fetched, or is not valid."""


def run(command: list[str], folder: Path) -> None:
    """Run a command that fetches. Raises `DataError` with the last line of its output."""
    told = f"`{' '.join(command)}`"
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{told} did not finish in {SECONDS} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DataError(f"{told} failed: {reason[-1] if reason else done.returncode}")
