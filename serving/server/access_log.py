"""One line of JSON for each request, written by a thread of its own."""

from __future__ import annotations

import json
import logging
import queue
import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener

from serving.server.records import RequestRecord

MOST_WAITING = 10_000
"""Lines that wait for the disk; a request that finds as many is not logged, for the log must not delay responses."""
MOST_CHARACTERS = 500
"""Of a path in the log."""


class AccessLog:
    """Requests that fail are always logged, of the others the share `sample`."""

    def __init__(self, target: str, sample: float, dropped: Callable[[], None]) -> None:
        """`target` is a file, appended to, or - for the standard output. Raises `OSError`."""
        writer = logging.StreamHandler(sys.stdout) if target == "-" else logging.FileHandler(target)
        writer.setFormatter(_Formatter())
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
        self._handler = QueueHandler(self._queue)
        self._listener = QueueListener(self._queue, writer)
        self._listener.start()
        self._sample = sample
        self._dropped = dropped

    def write(self, record: RequestRecord) -> None:
        """Log a finished request by and by; it is dropped, and counted, where the disk does not keep up."""
        if record.code == "OK" and self._sample < 1 and random.random() >= self._sample:  # noqa: S311 - no secret
            return
        try:
            self._handler.enqueue(logging.makeLogRecord({"request": record}))
        except queue.Full:
            self._dropped()

    def close(self) -> None:
        """Write what still waits."""
        self._listener.stop()


class _Formatter(logging.Formatter):
    """JSON in ASCII: whatever a client puts into a path stays in its string, on its line."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter` has it."""
        request: RequestRecord = record.request  # type: ignore[attr-defined]
        return json.dumps(
            {
                "time": datetime.fromtimestamp(request.started, UTC).isoformat(timespec="milliseconds"),
                "client": request.client,
                "method": request.method,
                "path": request.path[:MOST_CHARACTERS],
                "protocol": request.protocol,
                "model": request.model,
                "version": request.version,
                "code": request.code,
                "status": request.status,
                "rows": request.rows,
                "milliseconds": round(request.seconds * 1e3, 3),
                "queue_milliseconds": round(request.queue_seconds * 1e3, 3),
                "run_milliseconds": round(request.run_seconds * 1e3, 3),
                "request_bytes": request.request_bytes,
                "response_bytes": request.response_bytes,
            }
        )
