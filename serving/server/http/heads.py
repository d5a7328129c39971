"""Heads of responses, put together from pieces that are made once. https://www.rfc-editor.org/rfc/rfc9110"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

from serving.server.http.messages import Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CORS = b"".join(
    (
        b"access-control-allow-origin: *\r\n",
        b"access-control-allow-methods: GET, POST, OPTIONS\r\n",
        b"access-control-allow-headers: *\r\n",
    )
)


class Heads:
    """Makes heads; with `cors`, pages of other origins may read every answer."""

    def __init__(self, *, cors: bool) -> None:
        self._cors = CORS if cors else b""
        self._begun: dict[tuple[int, str], bytes] = {}
        self._second = 0
        self._date = b""

    def head(self, response: Response, trace: Sequence[tuple[str, str]], *, close: bool) -> bytes:
        """All that comes before the body; `trace` goes with it; with `close`, the connection ends behind it."""
        kind = (response.status, response.content_type)
        begun = self._begun.get(kind)
        if begun is None:
            begun = self._begun[kind] = self._begin(*kind)
        more = b""
        for header in response.headers:
            more += b"%b: %b\r\n" % header
        for name, value in trace:
            more += f"{name}: {value}\r\n".encode()
        if close:
            more += b"connection: close\r\n"
        return b"%b%d%b%b\r\n" % (begun, len(response.body), self._dated(), more)

    def _begin(self, status: int, content_type: str) -> bytes:
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
        return line.encode("latin-1") + self._cors + b"content-length: "

    def _dated(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = f"\r\ndate: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date
