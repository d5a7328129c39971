"""One HTTP connection: requests are read as they come and answered in their order.

https://www.rfc-editor.org/rfc/rfc9112 for what a head may be and when a connection has to close.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from math import inf

import httptools

from serving.server import eager
from serving.server.errors import (
    DEADLINE_PASSED,
    BodyTimeoutError,
    HeadTooLargeError,
    InvalidRequestError,
    ServerError,
    UnavailableError,
)
from serving.server.http.app import App
from serving.server.http.heads import CONTINUE
from serving.server.http.incoming import Incoming

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


class Connection(asyncio.Protocol):
    """A request whose client has gone is given up; one that cannot be read ends the connection.

    Timers cost more than most requests: whoever made the connection calls `check` now and then.
    """

    def __init__(
        self, app: App, patience: Patience, served: set[Connection], excess: set[Connection]
    ) -> None:
        """To join `served`, or `excess` where that has as many as it may."""
        self._app = app
        self._patience = patience
        self._excessive = len(served) >= patience.connections
        self._group = excess if self._excessive else served
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Incoming] = deque()
        """Requests that wait for those before them, the last perhaps still being read."""
        self._reading: Incoming | None = None
        """The last request, where its body is not whole."""
        self._answering: Incoming | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._deaf = False
        """Whether nothing more is read: the connection ends with its last answer."""
        self._reading_paused = self._writing_paused = False
        self._in_head = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._due = self._write_due = inf
        """When `check` ends the wait for the client to send, and to take its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse what is too many with the first request: whoever has sent none yet would miss the answer."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        peer = transport.get_extra_info("peername")
        self._client = f"{peer[0]}:{peer[1]}" if peer else ""
        self._group.add(self)
        patience = self._patience
        self._wait(patience.head_seconds if self._excessive else patience.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to answer."""
        self._group.discard(self)
        self._deaf = True
        del self._parser  # It refers to this.
        for incoming in self._queue:
            self._app.give_up(incoming)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read, then answer what is whole."""
        if self._deaf:
            return
        if self._excessive:
            self._refuse(
                UnavailableError(f"{self._patience.connections} connections are open already; try again")
            )
            return
        head, reading = self._headers if self._in_head else None, self._reading
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if not self._deaf:
                cause = error.__context__
                if not isinstance(cause, ServerError):
                    cause = InvalidRequestError(f"expected a request of HTTP/1.1: {error}")
                self._refuse(cause)
                return
        if self._in_head:
            if self._headers is not head:
                self._head_bytes = 0
                self._wait(self._patience.head_seconds)
            else:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES:
                    self._refuse(HeadTooLargeError(f"expected a head of at most {HEAD_BYTES} bytes"))
                    return
        elif self._reading is not None:
            if self._reading is not reading:
                self._wait(self._app.timeout_seconds)
        elif self._answering is None and not self._queue:
            # Empty lines before a request are no request, and no reason to wait for ever.
            self._in_head = True
            self._wait(self._patience.head_seconds)
        self._advance()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We stay with HTTP/1.1, as RFC 9110 (7.8) allows; the parser has not read the body: read it anew.
            lines = [self._parser.get_method() + b" " + self._url + b" HTTP/1.1"]
            kept = [header for header in self._headers if header[0] not in (b"upgrade", b"connection")]
            lines += [b": ".join(header) for header in kept]
            self._parser = httptools.HttpRequestParser(self)
            self._feed(b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        headers = dict(self._headers)
        parser = self._parser
        method = parser.get_method()
        if method == b"CONNECT":
            raise InvalidRequestError("expected a request for this server, got CONNECT")
        if b"upgrade" in headers and parser.should_upgrade():
            return
        self._in_head = False
        if self._deaf:
            return
        size = sum(map(len, headers)) + sum(map(len, headers.values()))
        if len(self._headers) > HEADERS or size > HEAD_BYTES:
            raise HeadTooLargeError(f"expected at most {HEADERS} headers of {HEAD_BYTES} bytes, got more")
        if len(self._queue) > PIPELINED:
            raise InvalidRequestError(f"expected at most {PIPELINED} requests to wait on one connection")
        # A client of HTTP/1.0 would have to be told that its connection is kept: it is not.
        keep_alive = parser.should_keep_alive() and (
            b"connection" not in headers or parser.get_http_version() != "1.0"
        )
        incoming = self._app.admit(method, self._url, headers, self._client, keep_alive=keep_alive)
        self._queue.append(incoming)
        if incoming.whole:
            self._deaf = True
        else:
            self._reading = incoming

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._reading is not None:
            self._reading.add(body)

    def on_message_complete(self) -> None:
        """The body is whole; that of a request that asks for an upgrade comes later."""
        incoming = self._reading
        if incoming is not None:
            self._reading = None
            self._due = inf
            incoming.whole = True
            self._deaf = not incoming.keep_alive

    def _advance(self) -> None:
        """Answer the first request if it is whole; read on unless another has to wait."""
        if self._transport.is_closing():
            return
        if self._queue and self._answering is None and not self._writing_paused:
            first = self._queue[0]
            if first.whole:
                self._answer(self._queue.popleft())
            elif first.expects_continue:
                first.expects_continue = False
                self._transport.write(CONTINUE)
        busy = self._answering is not None or self._writing_paused
        self._pause_reading(bool(self._queue) and (busy or self._queue[0].whole))

    def _answer(self, incoming: Incoming) -> None:
        self._answering = incoming
        task = eager.start(self._respond(incoming), incoming.context)
        if task is not None:
            self._task = task
            end = incoming.begun + self._app.timeout_seconds
            self._deadline = self._loop.call_at(end, task.cancel, DEADLINE_PASSED)

    async def _respond(self, incoming: Incoming) -> None:
        try:
            response = await self._app.respond(incoming)
        except asyncio.CancelledError:
            self._app.give_up(incoming)
            self._transport.abort()
            return
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._answering = self._task = None
        closes = self._app.closing or not incoming.keep_alive
        self._transport.write(self._app.reply(incoming, response))
        if closes:
            self._deaf = True
            self._transport.close()
            self._wait(self._patience.idle_seconds)
        elif self._queue:
            # In a turn of its own: others have a turn too, and nothing begins within this task.
            self._loop.call_soon(self._advance)
        else:
            self._pause_reading(False)
            if not self._in_head:
                self._wait(self._patience.idle_seconds)

    def _refuse(self, error: ServerError) -> None:
        """Answer what cannot be read, after all that could be, and close."""
        self._deaf = True
        self._in_head = False
        self._due = inf
        if self._reading is not None:
            self._reading.refuse(error)
            self._reading = None
        else:
            self._queue.append(self._app.refuse(error))
        self._advance()

    def _wait(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds

    def _pause_reading(self, pause: bool) -> None:
        if pause == self._reading_paused or self._transport.is_closing():
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        # What was not read could not come.
        if self._in_head:
            self._wait(self._patience.head_seconds)
        elif self._reading is not None:
            self._wait(self._app.timeout_seconds)

    def pause_writing(self) -> None:
        """The client does not take what it asked for: wait, but not for ever."""
        self._writing_paused = True
        self._write_due = self._loop.time() + self._patience.idle_seconds

    def resume_writing(self) -> None:
        """It does."""
        self._writing_paused = False
        self._write_due = inf
        self._advance()

    def shut_down(self) -> None:
        """Close, now or with the answer to what has been begun."""
        if not self._queue and self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        """Close whatever is under way."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """End a wait that was too long; `now` by the clock of the event loop."""
        if now >= self._write_due:
            self._transport.abort()
        elif now < self._due:
            return
        elif self._transport.is_closing():
            self._transport.abort()
        elif self._reading_paused:
            return
        elif self._in_head:
            head_seconds = self._patience.head_seconds
            self._refuse(BodyTimeoutError(f"expected a request's head within {head_seconds:g} s"))
        elif self._reading is not None:
            seconds = self._app.timeout_seconds
            self._refuse(BodyTimeoutError(f"the body was not whole within {seconds:g} s"))
        elif self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()
