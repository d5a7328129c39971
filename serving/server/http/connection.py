"""One HTTP connection: its requests are answered in their order, and its client is waited for, but not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from fcntl import ioctl
from math import inf
from termios import FIONREAD

from serving.server import eager
from serving.server.errors import DEADLINE_PASSED, BodyTimeoutError, ServerError, UnavailableError
from serving.server.http.app import App
from serving.server.http.heads import CONTINUE
from serving.server.http.incoming import Incoming
from serving.server.http.reader import Reader

REFUSED_SECONDS = 2.0
REFUSED_BYTES = 16 << 20
"""For a client to end a request that was refused; what it sends is thrown away."""


@dataclass(frozen=True)
class Patience:
    """How many connections there may be, and for how many seconds they may do nothing."""

    connections: int = 1000
    head_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    idle_seconds: float = 75.0
    """Between requests, and for a response to be taken."""
    unsent_bytes: int = 512 << 20
    """Of responses that their clients have not taken, all connections together; one alone may have more."""


class Connection(asyncio.Protocol):
    """A request whose client has gone is given up; one that cannot be read ends the connection.

    Timers cost more than most requests: whoever makes connections calls their `check` now and then.
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
        self._answering: Incoming | None = None
        self._task: asyncio.Task[None] | None = None
        """What answers, where it has to wait."""
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_paused = self._writing_paused = False
        self._due = self._write_due = inf
        """When `check` ends the wait for the client to send, and to take its answer."""
        self._left = REFUSED_BYTES
        """What may still come after the last request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._reader = Reader(self._app, f"{peer[0]}:{peer[1]}" if peer else "", self._queue)
        self._group.add(self)
        patience = self._patience
        self._wait(patience.head_seconds if self._excessive else patience.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to answer."""
        self._group.discard(self)
        self._reader.close()
        for incoming in self._queue:
            self._app.give_up(incoming)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read, then answer what is whole."""
        reader = self._reader
        if reader.ended:
            self._left -= len(data)
            if self._left < 0:
                self._transport.close()
            return
        if self._excessive:
            # Only now: whoever has sent nothing yet would miss the answer.
            most = self._patience.connections
            self._refuse(UnavailableError(f"{most} connections are open already; try again"))
            return
        try:
            anew = reader.feed(data)
        except ServerError as error:
            self._refuse(error)
            return
        if anew:
            self._wait_for_request()
        elif not reader.in_head and reader.body_of is None:
            if self._queue or self._answering is not None:
                self._due = inf
            else:
                # Empty lines before a request are no request, and no reason to wait for ever.
                reader.in_head = True
                self._wait_for_request()
        self._advance()

    def pause_writing(self) -> None:
        """The client does not take what it asked for: wait, but not for ever."""
        self._writing_paused = True
        self._write_due = self._loop.time() + self._patience.idle_seconds
        self._make_room()

    def resume_writing(self) -> None:
        """It does."""
        self._writing_paused = False
        self._write_due = inf
        self._advance()

    def shut_down(self) -> None:
        """Close, now or with the answer to what has been begun."""
        if self._queue or self._answering is not None or self._reader.in_head or self._transport.is_closing():
            return
        # Closing would reset a request that has come and was not read: a busy event loop may be late.
        unread = ioctl(self._transport.get_extra_info("socket").fileno(), FIONREAD, bytes(4))
        if not any(unread):
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
        elif self._reader.in_head:
            seconds = self._patience.head_seconds
            self._refuse(BodyTimeoutError(f"expected a request's head within {seconds:g} s"))
        elif self._reader.body_of is not None:
            seconds = self._app.timeout_seconds
            self._refuse(BodyTimeoutError(f"the body was not whole within {seconds:g} s"))
        elif self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _make_room(self) -> None:
        """Close those that have waited longest while responses that are not taken fill the memory for them."""
        waiting = sorted(
            (each for each in self._group if each._writing_paused), key=lambda each: each._write_due
        )
        sizes = [each._transport.get_write_buffer_size() for each in waiting]
        excess = sum(sizes) - self._patience.unsent_bytes
        for each, size in zip(waiting[:-1], sizes, strict=False):
            if excess <= 0:
                return
            each.abort()
            excess -= size

    def _refuse(self, error: ServerError) -> None:
        """Answer what cannot be read, after all that could be, and close."""
        self._reader.refuse(error)
        self._due = inf
        self._advance()

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
        if (bool(self._queue) and (busy or self._queue[0].whole)) != self._reading_paused:
            self._turn_reading()

    def _answer(self, incoming: Incoming) -> None:
        self._answering = incoming
        task = eager.start(self._respond(incoming), incoming.context)
        if task is not None:
            self._task = task
            end = incoming.begun + self._app.timeout_seconds
            self._deadline = self._loop.call_at(end, task.cancel, DEADLINE_PASSED)

    async def _respond(self, incoming: Incoming) -> None:
        answer = b""
        try:
            answer = self._app.reply(incoming, await self._app.respond(incoming))
        except asyncio.CancelledError:
            self._app.give_up(incoming)
            return
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._answering = self._task = None
            if not answer:
                self._transport.abort()
        self._transport.write(answer)
        if self._app.closing or not incoming.keep_alive:
            self._reader.ended = True
            if incoming.refusal is None:
                self._transport.close()
                self._wait(self._patience.idle_seconds)
            else:
                self._linger()
        elif self._queue:
            # In a turn of its own: others have a turn too, and nothing begins within this task.
            self._loop.call_soon(self._advance)
        elif not self._reader.in_head:
            self._wait(self._patience.idle_seconds)

    def _linger(self) -> None:
        """Let the client read why it was refused: closing at once would reset what it still sends, and the answer.

        https://www.rfc-editor.org/rfc/rfc9112#section-9.6
        """
        self._transport.write_eof()
        self._wait(REFUSED_SECONDS)
        if self._reading_paused:
            self._turn_reading()

    def _wait(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds

    def _wait_for_request(self) -> None:
        self._wait(self._patience.head_seconds if self._reader.in_head else self._app.timeout_seconds)

    def _turn_reading(self) -> None:
        if self._transport.is_closing():
            return
        self._reading_paused = not self._reading_paused
        if self._reading_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            if self._reader.in_head or self._reader.body_of is not None:
                self._wait_for_request()  # What was not read could not come.
