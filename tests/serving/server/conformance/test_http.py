"""HTTP itself, as clients of the original use it: util/net_http, libevent's evhttp and curl's habits."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator

from ..processes import ServerProcess
from .clients import value

PATH = "/v1/models/half_plus:predict"
BODY = json.dumps({"instances": [2.0]}).encode()
ANSWER = {"predictions": [4.0]}


def test_a_connection_is_kept(server: ServerProcess) -> None:
    """HTTP/1.1: several calls over one connection, also after errors."""
    connection = http.client.HTTPConnection(server.http, timeout=20)
    for body, status in ((BODY, 200), (b"{", 400), (BODY, 200)):
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
    connection.request("GET", "/v1/models/half_plus")
    assert connection.getresponse().status == 200
    connection.close()


def test_chunked_bodies(server: ServerProcess) -> None:
    """evhttp reads Transfer-Encoding: chunked."""

    def pieces() -> Iterator[bytes]:
        yield BODY[:5]
        yield BODY[5:]

    connection = http.client.HTTPConnection(server.http, timeout=20)
    connection.request("POST", PATH, pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read()) == ANSWER
    connection.close()


def test_http_1_0(server: ServerProcess) -> None:
    """ab and old health checks: an answer, and the connection closed."""
    with socket.create_connection(("127.0.0.1", server.http_port), 20) as raw:
        raw.sendall(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), len(BODY), BODY))
        received = b""
        while data := raw.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert json.loads(body) == ANSWER


def test_expect_continue(server: ServerProcess) -> None:
    """curl asks with Expect: 100-continue before bodies over 1 MiB, and evhttp answers it."""
    with socket.create_connection(("127.0.0.1", server.http_port), 20) as raw:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 100")
        raw.sendall(BODY)
        assert b" 200 " in raw.recv(65536).splitlines()[0]


def test_large_bodies(server: ServerProcess) -> None:
    """evhttp's own limit is the largest size_t, and the original sets none."""
    text = b"a" * 20_000_000
    encoded = base64.b64encode(text).decode()
    (back,) = value(server, "types", {"signature_name": "string", "instances": [{"b64": encoded}]})
    assert len(back) == len(text)


def test_control_characters(server: ServerProcess) -> None:
    """rapidjson reads and writes \\u0000 in strings, and JSON in a request may begin with white space."""
    body = b' \r\n\t{"signature_name": "string", "instances": ["a\\u0000b\\u001f"]} \n'
    assert value(server, "types", body) == ["a\x00b\x1f"]
