"""HTTP connections: uvicorn's, with limits on their number, their heads and their patience.

https://www.rfc-editor.org/rfc/rfc9112 for what a head may be and when a connection has to close.
"""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from dataclasses import dataclass
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES = 65_536
HEADERS = 200
PIPELINED = 200
"""Requests of one connection that wait behind one that is being answered."""


@dataclass(frozen=True)
class Patience:
    """How many connections there may be, and for how many seconds they may do nothing."""

    connections: int = 1000
    head_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    idle_seconds: float = 75.0
    """Between requests, and for a response to be taken."""


class _Refused(Exception):  # noqa: N818 - it never leaves this file
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(HttpToolsProtocol):
    """One connection. A request whose client has gone is given up; one with a wrong head ends the connection."""

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse what is too many: with the first request, for whoever has sent none yet would miss the answer."""
        self._task: asyncio.Task[None] | None = None
        self._answering: RequestResponseCycle | None = None
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._in_head = False
        self._head_bytes = self._head_count = 0
        self._deaf = False
        """Whether nothing more is read: the connection ends with what is being answered."""
        self._too_many = len(self.connections) >= self.patience.connections
        super().connection_made(transport)
        idle = self.patience.head_seconds if self._too_many else self.patience.idle_seconds
        if self._too_many:
            self.connections.discard(self)
        self.timeout_keep_alive_task = self.loop.call_later(idle, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to answer."""
        self._stop_head_timer()
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._task is not None and self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but for heads that are too large, too slow, or ask for an upgrade."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._too_many:
            self._refuse(503, f"{self.patience.connections} connections are open already; try again")
            return
        began_in_head = self._in_head
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            refused = error.__context__
            if isinstance(refused, _Refused):
                self._refuse(refused.status, str(refused))
            else:
                self._refuse(400, f"expected a request of HTTP/1.1: {error}")
            return
        if self._in_head and began_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, f"expected a head of at most {HEAD_BYTES} bytes")
                return
        # Empty lines before a request are no request, and no reason to wait for ever.
        if self._head_timer is None and (self._in_head or (len(data) < 1024 and data.isspace())):
            self._head_timer = self.loop.call_later(self.patience.head_seconds, self._head_is_late)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We stay with HTTP/1.1, as RFC 9110 (7.8) allows; the parser has not read the body: read it anew.
            lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
            lines += [
                b": ".join(header) for header in self.headers if header[0] not in (b"upgrade", b"connection")
            ]
            self.parser = httptools.HttpRequestParser(self)
            self._feed(b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        self._head_bytes = self._head_count = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count, and keep what the application is to see."""
        self._head_count += 1
        if self._head_count > HEADERS or len(name) + len(value) > HEAD_BYTES:
            raise _Refused(431, f"expected at most {HEADERS} headers of {HEAD_BYTES} bytes, got more")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_head_timer()
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= PIPELINED:
            raise _Refused(400, f"expected at most {PIPELINED} requests to wait on one connection")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole; that of a request that asks for an upgrade comes later."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for ever for a client that does not take its answer."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(self.patience.idle_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """The client does not take what it asked for: wait, but not for ever."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.patience.idle_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._stop_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as uvicorn has it
        self._answering = cycle
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"expected a request's head within {self.patience.head_seconds:g} s")

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be read, after all that could be, and close."""
        self._deaf = True
        self._stop_head_timer()
        answering = self._answering
        if answering is not None and not answering.response_complete:
            if answering is not self.cycle or not answering.more_body:
                # The responses before it come first, and then the connection closes.
                if self.pipeline and self.pipeline[0][0].more_body:
                    self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else answering
                last.keep_alive = False
                return
            # What is wrong is the body of the very request: who waits for it, waits in vain.
            answering.disconnected = True
            answering.message_event.set()
        body = orjson.dumps({"error": message})
        head = [
            STATUS_LINE[status],
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body),
            b"retry-after: 1\r\n" if status == 503 else b"",
            b"\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()
