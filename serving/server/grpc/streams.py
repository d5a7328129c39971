"""The streams of a connection: which calls they become, and how these are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ngh2

from serving.server.errors import (
    DeadlineError,
    ServerError,
    TooLargeError,
    UnavailableError,
    UnimplementedError,
)
from serving.server.grpc.call import Call
from serving.server.grpc.messages import HEAD, Header, status, timeout_seconds

if TYPE_CHECKING:
    from serving.server.grpc.server import GrpcServer


LARGE_BYTES = 1 << 16
"""Of an answer: from here on it is asked whether there is room for it until its client takes it."""


class Streams:
    """The streams of one connection."""

    def __init__(self, http2: ngh2.Connection, server: GrpcServer, flush: Callable[[], None]) -> None:
        """`flush` sends what nghttp2 has made."""
        self.loop = asyncio.get_running_loop()
        self.limits = server.limits
        self.observer = server.observer
        self.peer = ""
        self.calls: dict[int, Call] = {}
        self.to_reset: list[int] = []
        """Those that have ended for us, while the client may still send."""
        self.begun = 0
        """Calls so far."""
        self._fresh: list[Call] = []
        """Calls that are to be watched if they are not answered at once."""
        self._http2 = http2
        self._server = server
        self._flush = flush
        self._moved: asyncio.Future[None] | None = None

    def request(self, event: ngh2.RequestReceived) -> None:
        """Begin a call, or say why not."""
        stream, metadata = event.stream_id, dict(event.headers)
        if not metadata.get(b"content-type", b"").startswith(b"application/grpc"):
            self._http2.send_response(stream, ((b":status", b"415"),), end_stream=True)
            self.to_reset.append(stream)
            return
        try:
            call = self._call(stream, event.headers, metadata)
        except ServerError as error:
            self.finish(stream, b"", status(error.code, str(error)), False, event.end_stream)
            return
        self.calls[stream] = call
        self._fresh.append(call)
        self.begun += 1
        self._server.calls += 1
        if event.end_stream:
            call.feed(b"", True)

    def data(self, event: ngh2.DataReceived) -> None:
        """Feed a call."""
        call = self.calls.get(event.stream_id)
        if call is None:
            self.took(event.stream_id, len(event.data))
        else:
            call.feed(event.data, event.end_stream)

    def closed(self, event: ngh2.StreamClosed) -> None:
        """Forget a call: it was answered, or its client has gone."""
        self._forget(event.stream_id)

    def window(self, _event: ngh2.WindowUpdated) -> None:
        """The client has taken something."""
        self.wake()

    def wake(self) -> None:
        """Let handlers go on that wait for their answers to be taken."""
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None

    def watch(self) -> None:
        """Watch the deadlines of those calls that were not answered as they came."""
        for call in self._fresh:
            call.arm()
        self._fresh.clear()

    def clear(self) -> None:
        """Forget every call: the connection has ended."""
        for stream in list(self.calls):
            self._forget(stream)
        self.wake()

    def expire(self, now: float) -> None:
        """End what waits for the client for too long."""
        idle = self.limits.idle_seconds
        for stream, call in list(self.calls.items()):
            if not call.running and now - call.touched > idle:
                if call.over:
                    self.to_reset.append(stream)
                call.fail(DeadlineError(f"the request was not whole within {idle:g} s"))
                self._flush()

    def took(self, stream: int, size: int) -> None:
        """Note that so much of what was received needs no more room."""
        with suppress(ValueError, ngh2.NGH2Error):  # The stream may be closed by now.
            self._http2.acknowledge_received_data(size, stream)

    def send(self, stream: int, answer: bytes, first: bool) -> None:
        """Send a message of a stream of answers."""
        with suppress(ngh2.NGH2Error):
            if first:
                self._http2.send_response(stream, HEAD)
            self._http2.send_data(stream, answer)
        self._flush()

    async def taken(self, stream: int, most: int) -> None:
        """Wait until at most so many bytes of a stream's answers wait for the client."""
        while stream in self.calls and self._http2.queued_body_size(stream) > most:
            if self._moved is None:
                self._moved = self.loop.create_future()
            await asyncio.shield(self._moved)

    def finish(
        self, stream: int, answer: bytes, trailers: tuple[Header, ...], begun: bool, ended: bool
    ) -> None:
        """End a stream. `begun`: its head has been sent; `ended`: its client has sent all that it will."""
        with suppress(ngh2.NGH2Error):  # Its client may have gone.
            if answer or begun:
                if not begun:
                    self._http2.send_response(stream, HEAD)
                if answer:
                    self._http2.send_data(stream, answer)
                self._http2.send_trailers(stream, trailers)
            else:
                self._http2.send_response(stream, (*HEAD, *trailers), end_stream=True)
            if not ended:
                self.to_reset.append(stream)
        self._flush()

    def hold(self, size: int) -> None:
        """Count bytes received, or (below 0) let go of. Raises `UnavailableError` where all requests hold too much."""
        self._server.held += size
        if size > 0 and self._server.held > self.limits.held_bytes:
            raise UnavailableError(f"requests fill {self.limits.held_bytes} bytes already; try again")

    def make_room(self, size: int) -> None:
        """Raise `UnavailableError` where the answers that clients do not take leave no room for one more."""
        if size < LARGE_BYTES:
            return
        unsent = sum(connection.unsent for connection in self._server.connections)
        if unsent and unsent + size > self.limits.held_bytes:
            raise UnavailableError(
                f"answers that wait for their clients fill {unsent} of {self.limits.held_bytes} bytes, "
                f"{size} more do not fit; try again"
            )

    def _call(self, stream: int, headers: tuple[Any, ...], metadata: Mapping[bytes, bytes]) -> Call:
        size = sum(len(name) + len(value) + 32 for name, value in headers)
        if size > self.limits.metadata_bytes:
            raise TooLargeError(
                f"expected at most {self.limits.metadata_bytes} bytes of metadata, got {size}"
            )
        path = metadata[b":path"].decode("latin-1")
        method = self._server.methods.get(path)
        if method is None:
            raise UnimplementedError(f"no method is served at {path[:200]}")
        if self._server.calls >= self.limits.calls:
            raise TooLargeError(f"{self.limits.calls} calls are being answered already; try again")
        timeout = metadata.get(b"grpc-timeout")
        seconds = None if timeout is None else timeout_seconds(timeout.decode("latin-1"))
        return Call(self, stream, method, metadata, seconds)

    def _forget(self, stream: int) -> None:
        call = self.calls.pop(stream, None)
        if call is not None:
            self._server.calls -= 1
            call.gone()
