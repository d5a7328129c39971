"""The access log: a line of JSON for each request, written by a thread."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from serving.server.metrics import RequestRecord

FIELDS = (
    *("client", "method", "protocol", "model", "version", "code", "status", "rows"),
    *("request_bytes", "response_bytes"),
)
MOST_WAITING = 10_000
"""Lines that wait for the disk; further ones are dropped, so that the log delays no response."""
MOST_CHARACTERS = 500
"""Characters of a path in the log."""


class AccessLog:
    """Logs all failed requests, and the share `sample` of the others."""

    def __init__(self, target: str, sample: float, dropped: Callable[[], None]) -> None:
        """`target` is a file to append to, or - for the standard output. Raises `OSError`.

        `dropped` is called, in any thread, for each line lost to a slow or full disk.
        """
        self._file = sys.stdout if target == "-" else Path(target).open("a", encoding="ascii")  # noqa: SIM115 - for as long as the server runs
        self._sample = sample
        self._dropped = dropped
        self._waiting: SimpleQueue[RequestRecord | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def write(self, record: RequestRecord) -> None:
        if record.code == "OK" and self._sample < 1 and random.random() >= self._sample:  # noqa: S311 - no secret
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self._dropped()
        else:
            self._waiting.put(record)

    def close(self) -> None:
        """Write the waiting lines."""
        self._waiting.put(None)
        self._thread.join(5)  # A disk may be slow for longer.
        with suppress(OSError):
            self._file.flush()

    def _work(self) -> None:
        for record in iter(self._waiting.get, None):
            try:
                self._file.write(_line(record))
                if self._waiting.empty():
                    self._file.flush()
            except OSError:
                self._dropped()


def _line(record: RequestRecord) -> str:
    """Return a line of ASCII JSON: characters in a path cannot end its string or its line."""
    times = ("", record.seconds), ("queue_", record.queue_seconds), ("run_", record.run_seconds)
    line = {
        "time": datetime.fromtimestamp(record.started, UTC).isoformat(timespec="milliseconds"),
        "path": record.path[:MOST_CHARACTERS],
        **{name: getattr(record, name) for name in FIELDS},
        **{f"{what}milliseconds": round(seconds * 1e3, 3) for what, seconds in times},
    }
    return json.dumps(line) + "\n"
