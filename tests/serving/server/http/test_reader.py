"""Framing that is wrong, or that two servers could read differently."""

from __future__ import annotations

import pytest

from serving.server.http import Request, Response, Route

from .in_process import CLOSE, serving, statuses, tell


async def echo(request: Request) -> Response:
    return Response(request.body)


ROUTES = [Route("POST", "/echo", echo), Route("GET", "/page", echo)]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"Content-Length: +2\r\n\r\nab",
        b"Content-Length: 2, 2\r\n\r\nab",
        b"Content-Length: 0x2\r\n\r\nab",
        b"Content-Length : 2\r\n\r\nab",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\nab\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
        b"Content-Length: 2\n\nab",
        b"A: b\rContent-Length: 2\r\n\r\nab",
        b"A: b\r\n Content-Length: 2\r\n\r\nab",
        b"A: \x00\r\n\r\n",
    ],
)
async def test_what_two_servers_could_read_differently_is_refused(head: bytes) -> None:
    async with serving(ROUTES) as port:
        answer = await tell(port, b"POST /echo HTTP/1.1\r\n" + head + b"GET /page HTTP/1.1\r\n" + CLOSE)
    assert statuses(answer) == [400]
    assert b"connection: close" in answer


@pytest.mark.parametrize("codings", [b"xchunked", b"gzip, chunked", b"gzip\r\nTransfer-Encoding: chunked"])
async def test_a_transfer_coding_that_would_not_be_undone_is_refused(codings: bytes) -> None:
    """https://www.rfc-editor.org/rfc/rfc9112#section-6.1"""
    request = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: %b\r\n\r\n2\r\nab\r\n0\r\n\r\n" % codings
    async with serving(ROUTES) as port:
        answer = await tell(port, request + b"GET /page HTTP/1.1\r\n" + CLOSE)
        accepted = await tell(port, request.replace(codings, b"Chunked"), b"GET /page HTTP/1.1\r\n" + CLOSE)
    assert statuses(answer) == [501]
    assert b"connection: close" in answer
    assert statuses(accepted) == [200, 200]
