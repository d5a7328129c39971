"""One line of JSON for each request, written by a thread of its own."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO

import orjson

from serving.server.exchange import Exchange

MOST_WAITING = 10_000
"""Lines that wait for the disk. A request that finds as many is not written: the log must not delay answers."""
MOST_CHARACTERS = 500
"""Of a path or a client's name in the log."""


class AccessLog:
    """Requests that fail are always written, of the others the share `sample`.

    A line is JSON in ASCII: whatever a client puts into a path or a header, it stays in its string, on its line.
    """

    def __init__(self, target: str, sample: float, dropped: Callable[[], None]) -> None:
        """`target` is a file, appended to, or - for the standard output. Raises `OSError`."""
        self._file: BinaryIO = sys.stdout.buffer if target == "-" else Path(target).open("ab")  # noqa: SIM115
        self._sample = sample
        self._dropped = dropped
        self._queue: SimpleQueue[Exchange | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def write(self, seen: Exchange) -> None:
        """Write a request by and by; it is dropped, and counted, where the disk does not keep up."""
        if seen.code == "OK" and self._sample < 1 and random.random() >= self._sample:  # noqa: S311 - no secret
            return
        if self._queue.qsize() >= MOST_WAITING:
            self._dropped()
        else:
            self._queue.put(seen)

    def close(self) -> None:
        """Write what still waits."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _write(self) -> None:
        while True:
            batch = [self._queue.get()]
            # What has come meanwhile shares one write.
            try:
                while len(batch) < 1000:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            try:
                self._file.write(b"".join(_line(seen) for seen in batch if seen is not None))
                self._file.flush()
            except OSError:
                for _ in batch:
                    self._dropped()
            if None in batch:
                return


def _line(seen: Exchange) -> bytes:
    document: dict[str, object] = {
        "time": datetime.fromtimestamp(seen.started / 1e9, UTC).isoformat(timespec="milliseconds"),
        "client": seen.client[:MOST_CHARACTERS],
        "method": seen.method,
        "path": seen.path[:MOST_CHARACTERS],
        "protocol": seen.protocol,
        "model": seen.model,
        "version": seen.version,
        "code": seen.code,
        "status": seen.status,
        "rows": seen.rows,
        "milliseconds": round(seen.seconds * 1e3, 3),
        "queue_milliseconds": round(seen.queue * 1e3, 3),
        "compute_milliseconds": round(seen.compute * 1e3, 3),
        "request_bytes": seen.request_bytes,
        "response_bytes": seen.response_bytes,
        "trace_id": seen.trace.trace_id if seen.trace else "",
    }
    try:
        line = orjson.dumps(document)
    except TypeError:  # A lone surrogate.
        line = b"\xff"
    # U+0085 and its like end lines for some readers.
    return (line if line.isascii() else json.dumps(document).encode()) + b"\n"
