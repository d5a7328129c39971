"""Requests like earlier ones: a client repeats its head, all but the Content-Length, with every request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from serving.server.errors import ServerError
from serving.server.http.bodies import Bodies
from serving.server.http.incoming import Incoming
from serving.server.http.routes import Target

REMEMBERED = 256
"""Heads, each of at most `REMEMBERED_BYTES`."""
REMEMBERED_BYTES = 2048
END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: ([1-9][0-9]{0,14})\r\n", re.IGNORECASE)


class Known(NamedTuple):
    """What the parser and the routes have made of a head, the Content-Length left out."""

    headers: Mapping[bytes, bytes]
    target: Target


class KnownHeads:
    """Heads of requests that came whole and in one piece, and were not refused: another needs no parser."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._known: dict[bytes, Known] = {}

    def recall(self, data: bytes) -> Incoming | None:
        """The request that `data` is, all of it, where its head is known."""
        if not self._known:
            return None
        end = data.find(END) + len(END)
        found = LENGTH.search(data, 0, end)
        if found is None:
            return None
        known = self._known.get(data[: found.start(1)] + data[found.end(1) : end])
        size = len(data) - end
        if known is None or int(found[1]) != size or size > self._bodies.limit:
            return None
        incoming = Incoming(self._bodies, *known)
        try:
            incoming.add(data[end:])
        except ServerError as error:
            incoming.refuse(error)
        incoming.whole = True
        return incoming

    def learn(self, data: bytes, incoming: Incoming) -> None:
        """Remember the head of the request that `data` was, all of it, unless there was more to it than a route."""
        if incoming.seen is not None or incoming.refusal is not None or not incoming.keep_alive:
            return
        end = data.find(END) + len(END)
        found = LENGTH.search(data, 0, end)
        # Whoever disagrees on where the body begins is not to be trusted with the next one.
        if (
            found is None
            or end > REMEMBERED_BYTES
            or not len(incoming.body()) == len(data) - end == int(found[1])
        ):
            return
        headers = {name: value for name, value in incoming.headers.items() if name != b"content-length"}
        if (
            incoming.expects_continue
            or len(headers) == len(incoming.headers)
            or b"transfer-encoding" in headers
        ):
            return
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[data[: found.start(1)] + data[found.end(1) : end]] = Known(headers, incoming.target)
