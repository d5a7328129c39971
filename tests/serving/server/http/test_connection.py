"""Connections and what their clients can count on, over raw bytes and handlers that wait or do not."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest

from serving.server import exchange
from serving.server.http import Request, Response, Route
from serving.server.http.connection import Patience
from serving.server.http.server import LINGER_SECONDS

from .in_process import CLOSE, serving, statuses, tell

POST = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"


def post(path: bytes, body: bytes = b"") -> bytes:
    return POST % (path, len(body), body)


def last(path: bytes) -> bytes:
    return b"GET /%b HTTP/1.1\r\nHost: x\r\n" % path + CLOSE


async def echo(request: Request) -> Response:
    """Answers without a wait."""
    return Response(request.body or request.path.encode(), "text/plain")


async def slow(request: Request) -> Response:
    await asyncio.sleep(0.02)
    return await echo(request)


async def stuck(_request: Request) -> Response:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits for so long")


async def broken(_request: Request) -> Response:
    raise RuntimeError("a fault of ours")


async def observed(_request: Request) -> Response:
    return Response(b"no" if exchange.current.get() is None else b"yes")


ROUTES = [
    Route("POST", "/echo", echo),
    Route("GET", "/(?P<name>page[0-9]*)", echo),
    Route("POST", "/slow", slow),
    Route("POST", "/stuck", stuck),
    Route("POST", "/broken", broken),
    Route("GET", "/observed", observed),
]


async def test_answers_come_in_the_order_of_their_requests_whether_they_wait_or_not() -> None:
    data = (
        post(b"slow", b"<1>") + post(b"echo", b"<2>") + post(b"none") + post(b"slow", b"<3>") + last(b"page")
    )
    async with serving(ROUTES) as port:
        answer = await tell(port, data)
        in_pieces = await tell(port, *(data[n : n + 7] for n in range(0, len(data), 7)))
    for given in (answer, in_pieces):
        assert statuses(given) == [200, 200, 404, 200, 200]
        assert given.index(b"<1>") < given.index(b"<2>") < given.index(b"<3>") < given.index(b"/page")
        assert given.count(b"connection: close") == 1
        assert given.count(b"\r\ndate: ") == 5


async def test_a_head_asked_for_alone() -> None:
    async with serving(ROUTES) as port:
        answer = await tell(port, b"HEAD /page HTTP/1.1\r\n\r\n" + last(b"page").replace(b"GET", b"HEAD", 1))
    assert statuses(answer) == [200, 200]
    assert answer.count(b"content-length: 5\r\n") == 2
    assert answer.endswith(b"\r\n\r\n")


async def test_pages_of_other_origins_may_ask_where_it_is_allowed() -> None:
    preflight = b"OPTIONS /echo HTTP/1.1\r\nOrigin: http://a\r\n" + CLOSE
    async with serving(ROUTES, cors=True) as port:
        for data in (preflight, last(b"page"), last(b"none"), b"\x00"):
            assert b"access-control-allow-origin: *\r\n" in await tell(port, data)
        assert statuses(await tell(port, preflight)) == [200]
    async with serving(ROUTES) as port:
        assert statuses(await tell(port, preflight)) == [405]
        assert b"access-control" not in await tell(port, last(b"page"))


@pytest.mark.parametrize(("coding", "status"), [(b"br", 415), (b"gzip", 400), (b"identity", 200)])
async def test_an_encoding_of_no_body(coding: bytes, status: int) -> None:
    encoded = b"Content-Encoding: %b\r\n" % coding
    read = b"GET /page HTTP/1.1\r\n" + encoded + b"\r\n"
    async with serving(ROUTES) as port:
        answer = await tell(port, read + b"POST /echo HTTP/1.1\r\n" + encoded + b"\r\n" + last(b"page"))
    assert statuses(answer) == [200, status, 200]


async def test_a_client_that_asks_whether_to_go_on_is_told_in_its_turn() -> None:
    expecting = b"POST /%b HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    async with serving(ROUTES, max_body_bytes=1) as port:
        assert statuses(await tell(port, expecting % b"echo")) == [413]
        assert statuses(await tell(port, expecting % b"none")) == [404]
    async with serving(ROUTES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"slow", b"<1>") + expecting % b"echo")
        assert b"<1>" in await reader.readuntil(b"<1>")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_too_many_requests_that_wait_end_the_connection_after_those_before() -> None:
    async with serving(ROUTES) as port:
        assert statuses(await tell(port, post(b"slow") + post(b"echo") * 199 + last(b"page"))) == [200] * 201
        assert statuses(await tell(port, post(b"echo") * 250)) == [200] * 201 + [400]


async def test_deadlines() -> None:
    async with serving(ROUTES, timeout_seconds=0.1) as port:
        answer = await tell(port, post(b"stuck") + last(b"page"))
        assert statuses(answer) == [504, 200]
        assert b"no answer within 0.1 s" in answer
        answer = await tell(port, post(b"echo", b"abc")[:-1])
        assert statuses(answer) == [408]
        assert b"the body was not whole within 0.1 s" in answer
    async with serving(ROUTES, patience=Patience(head_seconds=0.1)) as port:
        for begun in (b"\r\n", b"P", b"POST /echo HTTP/1.1\r\nA:", post(b"echo") + b"P"):
            assert statuses(await tell(port, begun))[-1] == 408
    async with serving(ROUTES, patience=Patience(idle_seconds=0.1)) as port:
        assert await tell(port) == b""
        assert statuses(await tell(port, post(b"slow"))) == [200]


async def test_a_request_whose_client_has_gone_is_cancelled() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def watched(_request: Request) -> Response:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError("it was cancelled")

    async with serving([Route("POST", "/watched", watched)]) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"watched"))
        await begun.wait()
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_bodies_that_are_held_have_a_budget_that_comes_back() -> None:
    async with serving(ROUTES, max_body_bytes=10) as port:
        assert statuses(
            await tell(port, b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11)
        ) == [413]
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(16)]
        for _, writer in held:
            writer.write(post(b"stuck", b"x" * 10))
        await asyncio.sleep(0.05)
        answer = await tell(port, post(b"echo", b"x"))
        assert statuses(answer) == [503]
        assert b"retry-after: 1\r\n" in answer
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert statuses(await tell(port, post(b"echo", b"x" * 10) + last(b"page"))) == [200, 200]


async def test_a_client_that_does_not_take_its_answers_gets_no_more_of_them_computed() -> None:
    answered = 0

    async def large(_request: Request) -> Response:
        nonlocal answered
        answered += 1
        return Response(bytes(8_000_000), "application/octet-stream")

    async with serving([Route("GET", "/large", large)]) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(b"GET /large HTTP/1.1\r\n\r\n" * 19 + last(b"large"))
        await asyncio.sleep(0.2)
        assert answered < 5
        size = 0
        while chunk := await reader.read(1_000_000):
            size += len(chunk)
        assert answered == 20
        assert size > 20 * 8_000_000
        writer.close()


async def test_a_fault_of_ours_is_logged_and_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tandem.server"):
        async with serving(ROUTES) as port:
            answer = await tell(port, post(b"broken") + post(b"echo"))
    assert statuses(answer) == [500]
    assert b"its log says why" in answer
    assert "POST /broken failed" in caplog.text
    assert "a fault of ours" in caplog.text


async def test_what_is_noted_of_one_request_is_not_seen_by_the_next() -> None:
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    traced = b"GET /observed HTTP/1.1\r\n" + trace + b"\r\n"
    async with serving(ROUTES) as port:
        answer = await tell(port, traced + b"GET /observed HTTP/1.1\r\n\r\n" + traced + last(b"observed"))
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"yes", b"no", b"yes", b"no"]
    assert answer.count(trace) == 2


@pytest.mark.parametrize(
    ("path", "status", "size"),
    [(b"echo", 413, 1_100_000), (b"echo", 413, 3_000_000), (b"none", 404, 1_100_000)],
)
async def test_a_client_that_sends_all_before_it_reads_learns_why_it_is_refused(
    path: bytes, status: int, size: int
) -> None:
    def send_and_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(post(path, bytes(size)))
            time.sleep(0.05)
            return b"".join(iter(lambda: client.recv(65536), b""))

    async with serving(ROUTES) as port:
        answers = [await asyncio.to_thread(send_and_read, port) for _ in range(5)]
    assert [statuses(answer) for answer in answers] == [[status]] * 5


async def test_a_client_that_sends_on_for_ever_is_not_read_for_ever() -> None:
    def send(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"POST /none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            return next((sent for sent in range(1000) if not accepted(client)), 1000)

    def accepted(client: socket.socket) -> bool:
        try:
            client.sendall(b"10000\r\n%b\r\n" % bytes(65536))
        except OSError:
            return False
        return True

    async with serving(ROUTES) as port:
        assert await asyncio.to_thread(send, port) < 1000


async def test_draining_answers_what_has_come_while_the_event_loop_was_busy() -> None:
    with socket.socket() as client:

        async def busy(request: Request) -> Response:
            client.sendall(post(b"echo", b"<1>"))
            time.sleep(2 * LINGER_SECONDS)
            return await echo(request)

        async with serving([*ROUTES, Route("POST", "/busy", busy)]) as port:
            client.settimeout(5)
            client.connect(("127.0.0.1", port))
            other = await asyncio.open_connection("127.0.0.1", port)
            asyncio.get_running_loop().call_later(0.3, other[1].write, post(b"busy"))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        other[1].close()
    assert statuses(answer) == [200]


async def test_draining_finishes_what_was_begun() -> None:
    async with serving(ROUTES) as port:
        idle = asyncio.create_task(tell(port))
        busy = asyncio.create_task(tell(port, post(b"slow", b"<1>")))
        begun = await asyncio.open_connection("127.0.0.1", port)
        begun[1].write(post(b"slow", b"<2>")[:9])
        await asyncio.sleep(0.01)
        late = asyncio.create_task(tell(port, post(b"echo", b"<3>")))
        asyncio.get_running_loop().call_later(0.7, begun[1].write, post(b"slow", b"<2>")[9:])
    assert await idle == b""
    for answer in (await busy, await begun[0].read(), await late):
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
    begun[1].close()
    with pytest.raises(ConnectionRefusedError):
        await tell(port)
