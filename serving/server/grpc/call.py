"""One call: its messages, the handler that answers them, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from serving.server import eager, exchange
from serving.server.errors import (
    DEADLINE_PASSED,
    DeadlineError,
    InvalidRequestError,
    ServerError,
    UnimplementedError,
)
from serving.server.grpc.messages import (
    PREFIX,
    SUCCEEDED,
    Framed,
    Header,
    Messages,
    inflate,
    parse,
    serialize,
    status,
)
from serving.server.grpc.service import Method

if TYPE_CHECKING:
    from serving.server.grpc.streams import Streams

log = logging.getLogger("tandem.server")

WAITING = 16
"""Messages of a stream that wait for its handler; then the client is held back."""
UNTAKEN_BYTES = 1 << 20
"""Of a stream's answers that wait for the client; then the handler is held back."""
LATE = "Deadline Exceeded"
"""As grpc says it."""


class Call:
    """One call on a connection."""

    def __init__(
        self,
        streams: Streams,
        stream: int,
        method: Method,
        metadata: Mapping[bytes, bytes],
        timeout: float | None,
    ) -> None:
        self.ended = False
        """Whether the client has sent all that it will."""
        self.touched = streams.loop.time()
        """When it was begun, or something of it came or went."""
        self._streams = streams
        self._stream = stream
        self._method = method
        self._metadata = metadata
        # The loop's clock stands still while a callback runs.
        self._end = None if timeout is None else time.monotonic() + timeout
        self._messages = Messages(streams.limits.message_bytes)
        self._whole: deque[Framed] = deque()
        self._unread = self._kept = self._received = 0
        """Bytes that the client may not send again yet, those that are kept here, and all that came."""
        self._arrived: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = self._begun = False
        self.over = False
        """Whether it was answered."""

    @property
    def running(self) -> bool:
        """Whether its handler is at work."""
        return self._started and not self.over

    def feed(self, data: bytes, ended: bool) -> None:
        """Take what has come; the handler is started as soon as there is enough of it."""
        if self.over:
            self._streams.took(self._stream, len(data))
            return
        self.ended = ended
        self.touched = self._streams.loop.time()
        self._unread += len(data)
        self._received += len(data)
        try:
            self._keep(len(data))
            if data:
                self._whole.extend(self._messages.feed(data))
            if not self._method.request_streaming:
                self._release()
                if ended:
                    self._check_whole()
                    self._start()
                return
            if ended and self._messages.partial:
                raise InvalidRequestError("the client ended its stream within a message")
        except ServerError as error:
            self.fail(error)
            return
        if len(self._whole) < WAITING:
            self._release()
        if not self._started:
            self._start()
        elif self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def arm(self) -> None:
        """Begin to watch the client's deadline; calls that are answered at once need not."""
        if self._end is not None and not self.over and self._timer is None:
            self._timer = self._streams.loop.call_at(self._end, self._late)

    def fail(self, error: ServerError, trailers: tuple[Header, ...] = ()) -> None:
        """End the call with an error."""
        if not self.over:
            self._finish(b"", (*status(error.code, str(error)), *trailers))

    def gone(self) -> None:
        """Its stream has ended: give up what is still done for it."""
        if not self.over:
            self._stop()
            if self._task is not None:
                self._task.cancel()

    def _check_whole(self) -> None:
        if self._messages.partial or len(self._whole) != 1:
            what = "one that is cut short" if self._messages.partial else str(len(self._whole))
            raise UnimplementedError(f"expected exactly one message, got {what}")

    def _release(self) -> None:
        """Let the client send as much again."""
        if self._unread:
            self._streams.took(self._stream, self._unread)
            self._unread = 0

    def _keep(self, size: int) -> None:
        if not self.over:
            self._kept += size
            self._streams.hold(size)

    def _start(self) -> None:
        self._started = True
        self._task = eager.start(self._answer(), copy_context())

    def _late(self) -> None:
        if self._task is not None:
            self._task.cancel(DEADLINE_PASSED)
        else:
            self.fail(DeadlineError(LATE))

    async def _answer(self) -> None:
        observer, path = self._streams.observer, self._metadata[b":path"].decode("latin-1")
        seen = observer.begin(
            "gRPC",
            path.rpartition("/")[2],
            self._streams.peer,
            self._text(b"traceparent"),
            self._text(b"tracestate") or "",
        )
        if self._end is not None:
            exchange.deadline.set((self._end, LATE))
        fault, code, answer, size = None, "OK", b"", 0
        try:
            if self._method.response_streaming:
                size = await self._answer_stream()
            else:
                answer = await self._answer_one()
                size = len(answer)
        except ServerError as error:
            if error.status == 500:
                log.error("%s: %s", path, error)
            fault = error
        except asyncio.CancelledError as error:
            code = "CANCELLED"
            if DEADLINE_PASSED in error.args:
                fault = DeadlineError(LATE)
        except Exception:
            log.exception("%s failed", path)
            fault = ServerError("the server failed on this request; its log says why")
        trailers: tuple[Header, ...] = ()
        if seen is not None:
            seen.code = code if fault is None else fault.code.name
            seen.request_bytes, seen.response_bytes = self._received, size
            trailers = tuple((name.encode(), value.encode()) for name, value in observer.end(seen))
        if fault is not None:
            self.fail(fault, trailers)
        elif not self.over:
            self._finish(answer, (*SUCCEEDED, *trailers))

    async def _answer_one(self) -> bytes:
        return self._framed(await self._method.answer(await self._request()))

    async def _answer_stream(self) -> int:
        size = 0
        async for answer in self._method.answer(await self._request()):
            if self._end is not None and time.monotonic() > self._end:
                raise DeadlineError(LATE)  # Nothing interrupts what held the event loop itself.
            framed = self._framed(answer)
            size += len(framed)
            self._streams.send(self._stream, framed, first=not self._begun)
            self._begun = True
            self.touched = self._streams.loop.time()
            await self._streams.taken(self._stream, UNTAKEN_BYTES)
        return size

    def _framed(self, answer: Message) -> bytes:
        framed = serialize(answer, self._streams.limits.answer_bytes)
        self._streams.make_room(len(framed))
        return framed

    async def _request(self) -> Any:  # noqa: ANN401 - a message, or an iterator of them
        if self._method.request_streaming:
            return self._requests()
        return parse(self._method, await self._inflated(self._whole.popleft()))

    async def _requests(self) -> AsyncIterator[Any]:
        while self._whole or not self.ended:
            if self._whole:
                framed = self._whole.popleft()
                self._release()
                message = await self._inflated(framed)
                yield parse(self._method, message)
                self._keep(-PREFIX.size - len(message))
            else:
                self._arrived = self._streams.loop.create_future()
                await self._arrived

    async def _inflated(self, framed: Framed) -> bytes:
        compressed, message = framed
        if not compressed:
            return message
        encoding = self._text(b"grpc-encoding") or "identity"
        plain = await asyncio.to_thread(inflate, message, encoding, self._streams.limits.message_bytes)
        self._keep(len(plain) - len(message))
        return plain

    def _text(self, name: bytes) -> str | None:
        value = self._metadata.get(name)
        return None if value is None else value.decode("latin-1")

    def _finish(self, answer: bytes, trailers: tuple[Header, ...]) -> None:
        self._stop()
        self._streams.finish(self._stream, answer, trailers, self._begun, self.ended)

    def _stop(self) -> None:
        self._keep(-self._kept)
        self.over = True
        self.touched = self._streams.loop.time()
        self._release()
        if self._timer is not None:
            self._timer.cancel()
