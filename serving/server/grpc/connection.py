"""One HTTP/2 connection: nghttp2 speaks the protocol, this file says what its events mean to calls."""

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
    from serving.server.observer import Observer

STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
"""Bytes that a client may send before they are read."""
PINGS = 100
"""Pings of a client in a minute."""
PONG_SECONDS = 20.0
"""For the answer to a ping of ours."""
DRAINING = b"draining"
ALIVE = b"alive?  "


class Connection(asyncio.Protocol):
    """A client's connection. Calls are handled as they come, and what is answered at once leaves in one write."""

    def __init__(self, server: GrpcServer) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = server.limits
        self.observer: Observer = server.observer
        self.peer = ""
        self._server = server
        self._http2 = ngh2.Connection(ngh2.Role.SERVER, _CONFIGURATION)
        self._calls: dict[int, Call] = {}
        self._to_reset: list[int] = []
        """Streams that have ended for us, while the client may still send."""
        self._reading = self._paused = False
        self._made = self._heard = self._written = self.loop.time()
        self._greeted = self._asked = self._draining = self._final = False
        self._pings: list[float] = []
        self._moved: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Greet, unless there are too many."""
        self._transport = transport
        if len(self._server.connections) >= self.limits.connections:
            transport.close()
            return
        self._server.connections.add(self)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        self._http2.initiate_connection(
            {
                int(ngh2.Setting.MAX_CONCURRENT_STREAMS): self.limits.streams,
                int(ngh2.Setting.INITIAL_WINDOW_SIZE): STREAM_WINDOW,
                int(ngh2.Setting.MAX_HEADER_LIST_SIZE): self.limits.metadata_bytes,
            }
        )
        self._http2.set_local_window_size(CONNECTION_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once."""
        self._heard = self.loop.time()
        self._asked = False
        self._reading = True
        try:
            self._http2.receive_data(data)
            self._handle_events()
        except ngh2.NGH2Error:
            self._transport.close()  # What it sends is no HTTP/2, or more than is good.
            return
        finally:
            self._reading = False
        self._flush()
        for call in self._calls.values() if self._calls else ():
            call.arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to answer."""
        self._server.connections.discard(self)
        for stream in list(self._calls):
            self._forget(stream)
        self._wake()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does."""
        self._paused = False
        self._flush()

    def drain(self) -> None:
        """Ask the client to begin no more calls; close when those are answered that it began before it heard this."""
        if self._draining or self._transport.is_closing():
            return
        self._draining = True
        self._http2.send_shutdown_notice()
        # What it has sent before it answers this, it has sent before it knew.
        self._http2.ping(DRAINING)
        self._flush()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """End what takes too long."""
        idle = self.limits.idle_seconds
        silent = now - self._heard
        if (
            (not self._greeted and now - self._made > self.limits.head_seconds)
            or (self._asked and silent > idle + PONG_SECONDS)
            or (self._paused and now - self._written > idle)
        ):
            self._transport.abort()
        elif self._greeted and not self._asked and silent > idle:
            self._asked = True
            self._http2.ping(ALIVE)
            self._flush()
        for stream, call in list(self._calls.items()):
            if not call.running and now - call.touched > idle:
                if call.over:
                    self._to_reset.append(stream)
                call.fail(DeadlineError(f"the request was not whole within {idle:g} s"))
                self._flush()
        if self.limits.age_seconds is not None and now - self._made > self.limits.age_seconds:
            self.drain()

    def hold(self, size: int) -> None:
        """Count bytes received, or (below 0) let go of. Raises `UnavailableError` where all requests hold too much."""
        self._server.held += size
        if size > 0 and self._server.held > self.limits.held_bytes:
            raise UnavailableError(f"requests fill {self.limits.held_bytes} bytes already; try again")

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
        while stream in self._calls and self._http2.queued_body_size(stream) > most:
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
                self._to_reset.append(stream)
        if not self._reading:
            self._flush()

    def _handle_events(self) -> None:
        for event in self._http2.events():
            handle = _HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)

    def _flush(self) -> None:
        if self._paused or self._transport.is_closing():
            return
        while True:
            data = self._http2.data_to_send()
            if data:
                self._written = self.loop.time()
                self._transport.write(data)
            if not self._to_reset:
                break
            # Only now: with the answer still unsent, a reset would take its place.
            streams, self._to_reset = self._to_reset, []
            for stream in streams:
                with suppress(ngh2.NGH2Error):
                    self._http2.reset_stream(stream, int(ngh2.ErrorCode.NO_ERROR))
        self._handle_events()  # Streams are closed by what is sent, too.
        if self._final and not self._calls:
            self._transport.close()

    def _request(self, event: ngh2.RequestReceived) -> None:
        stream, metadata = event.stream_id, dict(event.headers)
        if not metadata.get(b"content-type", b"").startswith(b"application/grpc"):
            self._http2.send_response(stream, ((b":status", b"415"),), end_stream=True)
            self._to_reset.append(stream)
            return
        try:
            call = self._call(stream, event.headers, metadata)
        except ServerError as error:
            self.finish(stream, b"", status(error.code, str(error)), False, event.end_stream)
            return
        self._calls[stream] = call
        self._server.calls += 1
        if event.end_stream:
            call.feed(b"", True)

    def _call(self, stream: int, headers: tuple[Any, ...], metadata: Mapping[bytes, bytes]) -> Call:
        size = sum(len(name) + len(value) + 32 for name, value in headers)
        if size > self.limits.metadata_bytes:
            raise TooLargeError(
                f"expected at most {self.limits.metadata_bytes} bytes of metadata, got {size}"
            )
        method = self._server.find(metadata[b":path"].decode("latin-1"))
        if method is None:
            raise UnimplementedError(f"no method is served at {metadata[b':path'].decode('latin-1')[:200]}")
        if self._server.calls >= self.limits.calls:
            raise TooLargeError(f"{self.limits.calls} calls are being answered already; try again")
        timeout = metadata.get(b"grpc-timeout")
        seconds = None if timeout is None else timeout_seconds(timeout.decode("latin-1"))
        return Call(self, stream, method, metadata, seconds)

    def _data(self, event: ngh2.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            self.took(event.stream_id, len(event.data))
        else:
            call.feed(event.data, event.end_stream)

    def _closed(self, event: ngh2.StreamClosed) -> None:
        self._forget(event.stream_id)

    def _window(self, _event: ngh2.WindowUpdated) -> None:
        self._wake()

    def _settings(self, _event: ngh2.SettingsReceived) -> None:
        self._greeted = True
        self._wake()

    def _ping(self, _event: ngh2.PingReceived) -> None:
        minute = self._heard - 60
        self._pings = [*(time for time in self._pings if time > minute), self._heard]
        if len(self._pings) > PINGS:
            self._http2.terminate_connection(int(ngh2.ErrorCode.ENHANCE_YOUR_CALM))
            self._final = True

    def _pong(self, event: ngh2.PingAcknowledged) -> None:
        if event.opaque_data == DRAINING and not self._final:
            self._http2.send_goaway(int(ngh2.ErrorCode.NO_ERROR))
            self._final = True

    def _forget(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._server.calls -= 1
            call.gone()

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None


_CONFIGURATION = ngh2.Configuration(auto_window_update=False, max_inbound_header_count=200)
_HANDLERS: dict[type[ngh2.Event], Callable[[Connection, Any], None]] = {
    ngh2.RequestReceived: Connection._request,
    ngh2.DataReceived: Connection._data,
    ngh2.StreamClosed: Connection._closed,
    ngh2.WindowUpdated: Connection._window,
    ngh2.SettingsReceived: Connection._settings,
    ngh2.PingReceived: Connection._ping,
    ngh2.PingAcknowledged: Connection._pong,
}
