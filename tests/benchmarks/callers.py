"""The clients, which run in a process of their own so that their CPU time is nobody else's.

Closed loops: each connection sends its next request when the answer to the last has come. HTTP goes straight
over sockets on uvloop, gRPC over one channel of grpc.aio with messages that are encoded beforehand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
import httptools
import numpy as np
import uvloop

from .encodings import Answers, Body, Floats, Protocol
from .processes import cpu_seconds

WARM_CALLS = 10
"""After another server's turn, before anything is measured."""
TOLERANCE = 1e-5
"""Largest difference between an answer and the model's own in the same runtime."""
TIMEOUT_SECONDS = 30
INFER = "/inference.GRPCInferenceService/ModelInfer"

Answer = tuple[int, bytes, dict[str, str]]
Send = Callable[[bytes], Awaitable[Answer]]


@dataclass(frozen=True)
class Target:
    """An endpoint, what it is asked, and what it should answer."""

    protocol: Protocol
    http_port: int
    grpc_port: int
    model: str
    input_name: str
    pictures: Floats
    """[N, H, W, C]: asked one by one, in turn."""
    expected: Answers
    """Every output, [N, ...]."""
    pid: int
    """The first process of the server's tree."""


@dataclass
class Turn:
    """What became of one turn of calls."""

    latencies: list[float]
    """Seconds, of the calls that were answered rightly."""
    cpu_seconds: float
    """Of the server's tree, while all calls ran."""
    seconds: float
    faults: list[str] = field(default_factory=list)
    """Calls that failed or were answered wrongly."""

    @property
    def calls(self) -> int:
        """How many were sent."""
        return len(self.latencies) + len(self.faults)


def drive(target: Target, concurrency: int, calls: int = 0, seconds: float = 0.0) -> Turn:
    """Call from `concurrency` connections: `calls` times in all or, where that is 0, for `seconds`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(target, concurrency, calls, seconds))


def answers(target: Target) -> bool:
    """Whether one call is answered rightly now."""
    try:
        return not drive(target, 1, calls=1).faults
    except (OSError, grpc.RpcError):
        return False


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request on the way at a time."""

    def __init__(self) -> None:
        self._reset()
        self._done: asyncio.Future[Answer] | None = None

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._headers: dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed the connection ({exc})"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result((self._parser.get_status_code(), self._body, self._headers))

    async def send(self, request: bytes) -> Answer:
        """Send a request whole, and wait for its answer."""
        self._reset()
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return await self._done


def _http_request(target: Target, body: Body) -> bytes:
    headers = {
        "Host": f"127.0.0.1:{target.http_port}",
        "Accept": "*/*",
        "Content-Type": body.content_type,
        "Content-Length": str(len(body.content)),
        **(body.headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = target.protocol.path.format(name=target.model)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body.content


@asynccontextmanager
async def _http_connections(target: Target, count: int) -> AsyncIterator[list[Send]]:
    async with AsyncExitStack() as stack:
        senders: list[Send] = []
        for _ in range(count):
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(_Connection, "127.0.0.1", target.http_port)
            stack.callback(transport.close)
            senders.append(connection.send)
        yield senders


@asynccontextmanager
async def _grpc_calls(target: Target, count: int) -> AsyncIterator[list[Send]]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        call = channel.unary_unary(INFER, bytes, bytes)

        async def send(message: bytes) -> Answer:
            return 200, await call(message), {}

        yield [send] * count


async def _drive(target: Target, concurrency: int, calls: int, seconds: float) -> Turn:
    protocol = target.protocol
    bodies = [
        protocol.encode(target.model, target.input_name, target.pictures[index : index + 1])
        for index in range(len(target.pictures))
    ]
    messages = [_http_request(target, body) if protocol.path else body.content for body in bodies]
    connect = _http_connections if protocol.path else _grpc_calls
    faults: list[str] = []
    answered: list[tuple[int, float, Answer]] = []
    async with connect(target, concurrency) as senders:
        if calls != 1:
            for call in range(WARM_CALLS):
                await senders[call % concurrency](messages[call % len(messages)])
        left = calls
        cpu = cpu_seconds(target.pid)
        start = time.perf_counter()

        async def loop(send: Send, call: int) -> None:
            nonlocal left
            while left > 0 if calls else time.perf_counter() - start < seconds:
                left -= 1
                begun = time.perf_counter()
                try:
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        answer = await send(messages[call % len(messages)])
                except (OSError, TimeoutError, grpc.RpcError) as error:
                    faults.append(f"{type(error).__name__}: {error}"[:200])
                    # The connection is of no more use.
                    return
                answered.append((call % len(messages), time.perf_counter() - begun, answer))
                call += 1

        await asyncio.gather(*(loop(send, index) for index, send in enumerate(senders)))
        took = time.perf_counter() - start
        cpu = cpu_seconds(target.pid) - cpu
    turn = Turn([], cpu, took, faults)
    for picture, latency, answer in answered:
        fault = _fault(target, picture, answer)
        if fault:
            turn.faults.append(fault)
        else:
            turn.latencies.append(latency)
    return turn


def _fault(target: Target, picture: int, answer: Answer) -> str:
    """What is wrong with an answer; empty where nothing is."""
    status, body, headers = answer
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    try:
        outputs = target.protocol.decode(body, headers)
    except (ValueError, KeyError, TypeError) as error:
        return f"cannot be read: {type(error).__name__}: {error}"
    for name, values in target.expected.items():
        expected = values[picture : picture + 1]
        if name not in outputs or outputs[name].shape != expected.shape:
            return f"output {name!r} is missing or of another shape"
        apart = float(np.abs(outputs[name] - expected).max())
        if not apart <= TOLERANCE:
            return f"output {name!r} is wrong by {apart:.1e}"
    return ""
