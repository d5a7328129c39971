"""A request like an earlier one is read without the parser: with whatever comes, it must be as if it were the first."""

from __future__ import annotations

import asyncio

import pytest

from serving.server.http import Request, Response, Route
from serving.server.http.bodies import HELD
from serving.server.http.known_heads import KnownHeads

from .in_process import CLOSE, serving, statuses, tell

LIMIT = 1000


async def echo(request: Request) -> Response:
    return Response(b"<%b|%b>" % (request.headers.get("a", "-").encode(), request.body))


ROUTES = [Route("POST", "/echo", echo), Route("GET", "/echo", echo)]
HEAD = b"POST /echo HTTP/1.1\r\nHost: here\r\nA: b\r\nContent-Length: %b\r\n\r\n"
LAST = b"GET /echo HTTP/1.1\r\n" + CLOSE


def post(body: bytes, length: bytes | None = None) -> bytes:
    return HEAD % (str(len(body)).encode() if length is None else length) + body


def bodies(answer: bytes) -> list[bytes]:
    return [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def recalled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each piece that came between requests: whether it was one that is known."""
    seen: list[bool] = []
    recall = KnownHeads.recall

    def watch(self: KnownHeads, data: bytes) -> object:
        found = recall(self, data)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(KnownHeads, "recall", watch)
    return seen


async def test_what_differs_in_length_and_body_alone_is_known(recalled: list[bool]) -> None:
    async with serving(ROUTES) as port:
        first = await tell(port, post(b"one"), LAST)
        assert not any(recalled)
        recalled.clear()
        again = await tell(port, post(b"two, longer"), post(b"\r\n\r\n"), LAST)
    assert recalled == [True, True, False]
    assert bodies(first) == [b"<b|one>", b"<-|>"]
    assert bodies(again) == [b"<b|two, longer>", b"<b|\r\n\r\n>", b"<-|>"]


@pytest.mark.parametrize(
    "pieces",
    [
        [post(b"x" * (LIMIT + 1))],
        [post(b"body", b"04"), LAST],
        [post(b"body", b"+4")],
        [post(b"body", b"9" * 30)],
        [post(b"", b"0") + LAST],
        [post(b"body", b"3") + LAST],
        [post(b"bo", b"4"), b"dy" + LAST],
        [HEAD % b"4", b"body", LAST],
        [HEAD % b"4" + b"body" + HEAD % b"2" + b"bo" + LAST],
        [b"\r\n\r\n" + post(b"body") + LAST],
        [b"\r\n\r\n" + post(b"body"), post(b"body"), LAST],
        [post(b"body", b"4\r\nContent-Length: 4")],
        [post(b"body", b"4\r\nTransfer-Encoding: chunked")],
        [post(b"body", b"4\r\nExpect: 100-continue"), post(b"body", b"4\r\nExpect: 100-continue"), LAST],
        [post(b"body", b"4\r\nConnection: close"), post(b"body", b"4\r\nConnection: close")],
        [post(b"body", b"4\r\nContent-Encoding: gzip"), post(b"body", b"4\r\nContent-Encoding: gzip"), LAST],
        [post(b"body").replace(b"A:", b"Upgrade: h2c\r\nConnection: Upgrade\r\nA:")] * 2 + [LAST],
        [post(b"body").replace(b"1.1", b"1.0")] * 2,
        [post(b"body").replace(b"POST", b"GET")] * 2 + [LAST],
        [post(b"body").replace(b"/echo", b"/none")] * 2,
        [post(b"body").replace(b"\r\n", b"\n")] * 2 + [LAST],
        [post(b"body").replace(b"A: b", b"A: c"), LAST],
        [post(b"body").replace(b"Content-L", b"content-l")] * 2 + [LAST],
        [post(b"body").replace(b"Content-L", b"A: c\r\n Content-L")] * 2 + [LAST],
        [post(b"body", b"2").replace(b"A: b", b"B: \r\n\r\n"), LAST],
    ],
)
async def test_whatever_follows_known_requests_is_answered_as_by_a_server_that_knows_none(
    pieces: list[bytes],
) -> None:
    async with serving(ROUTES, max_body_bytes=LIMIT) as port:
        fresh = await tell(port, *pieces)
    async with serving(ROUTES, max_body_bytes=LIMIT) as port:
        warm = await tell(port, post(b"one"), post(b"three"), *pieces)
    assert statuses(warm) == [200, 200, *statuses(fresh)]
    assert bodies(warm) == [b"<b|one>", b"<b|three>", *bodies(fresh)]


async def test_a_known_head_takes_no_memory_that_others_fill(recalled: list[bool]) -> None:
    async with serving(ROUTES, max_body_bytes=LIMIT) as port:
        assert statuses(await tell(port, post(b"one"), LAST)) == [200, 200]
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HELD)]
        for _, writer in others:
            writer.write(HEAD % b"990" + b"x" * 980)
        await asyncio.sleep(0.2)
        recalled.clear()
        refused = await tell(port, post(b"x" * 900))
        assert recalled == [True]
        assert statuses(refused) == [503]
        assert b"connection: close" in refused
        for reader, writer in others:
            writer.write(b"x" * 10)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        assert statuses(await tell(port, *[post(b"x" * 900)] * 20, LAST)) == [200] * 21


async def test_the_memory_for_bodies_is_given_back(recalled: list[bool]) -> None:
    async with serving(ROUTES, max_body_bytes=LIMIT) as port:
        answer = await tell(port, *[post(b"x" * 900)] * 40, LAST)
    assert sum(recalled) == 39
    assert statuses(answer) == [200] * 41


async def test_heads_that_never_come_again_are_forgotten() -> None:
    async with serving(ROUTES) as port:
        answer = await tell(port, *[post(b"x").replace(b"A: b", b"A: %d" % n) for n in range(600)], LAST)
    assert bodies(answer) == [*(b"<%d|x>" % n for n in range(600)), b"<-|>"]
