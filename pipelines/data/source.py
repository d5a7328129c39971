"""What every data source has."""

from __future__ import annotations

from collections.abc import Callable

from serving.errors import TandemError

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come, and the bytes that will come (0: unknown)."""


class DataError(TandemError):
    """The data could not be had, or is not what it must be."""
