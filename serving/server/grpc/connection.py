"""One HTTP/2 connection: nghttp2 speaks the protocol, this file sees to bytes, time and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ngh2

from serving.server.grpc.streams import Streams

if TYPE_CHECKING:
    from serving.server.grpc.server import GrpcServer

STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
"""Bytes that a client may send before they are read."""
PINGS = 100
"""In a minute, of a client that calls nothing."""
PONG_SECONDS = 20.0
"""For the answer to a ping of ours."""
DRAINING = b"draining"
ALIVE = b"alive?  "


class Connection(asyncio.Protocol):
    """A client's connection. Calls are handled as they come, and what is answered at once leaves in one write."""

    def __init__(self, server: GrpcServer) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = server.limits
        self._server = server
        self._http2 = ngh2.Connection(ngh2.Role.SERVER, _CONFIGURATION)
        self._streams = streams = Streams(self._http2, server, self._flush)
        self._handlers: dict[type[ngh2.Event], Callable[[Any], None]] = {
            ngh2.RequestReceived: streams.request,
            ngh2.DataReceived: streams.data,
            ngh2.StreamClosed: streams.closed,
            ngh2.WindowUpdated: streams.window,
            ngh2.SettingsReceived: self._settings,
            ngh2.PingReceived: self._ping,
            ngh2.PingAcknowledged: self._pong,
        }
        self._reading = self._paused = False
        self._made = self._heard = self._written = self._loop.time()
        self._greeted = self._asked = self._draining = self._final = False
        self._pings: list[float] = []
        """When they came, since the last call."""
        self._begun = 0
        """Calls until the last ping."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Greet, unless there are too many."""
        self._transport = transport
        if len(self._server.connections) >= self._limits.connections:
            transport.close()
            return
        self._server.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._streams.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        self._http2.initiate_connection(
            {
                int(ngh2.Setting.MAX_CONCURRENT_STREAMS): self._limits.streams,
                int(ngh2.Setting.INITIAL_WINDOW_SIZE): STREAM_WINDOW,
                int(ngh2.Setting.MAX_HEADER_LIST_SIZE): self._limits.metadata_bytes,
            }
        )
        self._http2.set_local_window_size(CONNECTION_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once."""
        self._heard = self._loop.time()
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
        self._streams.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to answer."""
        self._server.connections.discard(self)
        self._streams.clear()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does."""
        self._paused = False
        self._flush()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""
        return int(self._transport.get_write_buffer_size() + self._http2.queued_body_size())

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
        idle = self._limits.idle_seconds
        silent = now - self._heard
        if (
            (not self._greeted and now - self._made > self._limits.head_seconds)
            or (self._asked and silent > idle + PONG_SECONDS)
            or (self._paused and now - self._written > idle)
        ):
            self._transport.abort()
        elif self._greeted and not self._asked and silent > idle:
            self._asked = True
            self._http2.ping(ALIVE)
            self._flush()
        self._streams.expire(now)
        if self._limits.age_seconds is not None and now - self._made > self._limits.age_seconds:
            self.drain()

    def _handle_events(self) -> None:
        for event in self._http2.events():
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(event)

    def _flush(self) -> None:
        if self._reading or self._paused or self._transport.is_closing():
            return
        while True:
            data = self._http2.data_to_send()
            if data:
                self._written = self._loop.time()
                self._transport.write(data)
            if not self._streams.to_reset:
                break
            # Only now: with the answer still unsent, a reset would take its place.
            streams, self._streams.to_reset = self._streams.to_reset, []
            for stream in streams:
                with suppress(ngh2.NGH2Error):
                    self._http2.reset_stream(stream, int(ngh2.ErrorCode.NO_ERROR))
        self._handle_events()  # Streams are closed by what is sent, too.
        if self._final and not self._streams.calls:
            self._transport.close()

    def _settings(self, _event: ngh2.SettingsReceived) -> None:
        self._greeted = True
        self._streams.wake()  # Windows may have grown.

    def _ping(self, _event: ngh2.PingReceived) -> None:
        if self._streams.begun > self._begun:  # Clients that call measure the line by pings.
            self._begun, self._pings = self._streams.begun, []
        minute = self._heard - 60
        self._pings = [*(time for time in self._pings if time > minute), self._heard]
        if len(self._pings) > PINGS:
            self._http2.terminate_connection(int(ngh2.ErrorCode.ENHANCE_YOUR_CALM))
            self._final = True

    def _pong(self, event: ngh2.PingAcknowledged) -> None:
        if event.opaque_data == DRAINING and not self._final:
            self._http2.send_goaway(int(ngh2.ErrorCode.NO_ERROR))
            self._final = True


_CONFIGURATION = ngh2.Configuration(auto_window_update=False, max_inbound_header_count=200)
