"""HTTP as clients speak it, well, badly or slowly, over raw sockets, beside a client that is served."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.server.errors import MethodNotAllowedError, NotFoundError
from serving.server.http import Request, Response, Route, router

from .artifacts import write_onnx, write_slow_onnx
from .processes import ServerProcess, infer_body, oip_body, running

INFER = "/v2/models/fashion/infer"
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n"
LIMIT = 4 << 20
SLOW = "/v2/models/slow/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """At most 30 connections, 1 s for a request, 2 s between requests, bodies of up to 4 MiB, 200 rows."""
    root = tmp_path_factory.mktemp("http")
    write_onnx(root / "repository" / "fashion", 1)
    write_slow_onnx(root / "repository" / "slow")
    times = ("--idle-timeout-seconds=2", "--request-timeout-seconds=1")
    limits = ("--max-connections=30", f"--max-body-bytes={LIMIT}", "--max-rows=200")
    with running("onnxruntime", root, *times, *limits) as server:
        yield server


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=15)


def post(data: bytes, path: str = INFER) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            got += chunk
    return got


def tell(server: ServerProcess, data: bytes) -> bytes:
    with connect(server) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return everything(connection)


def assert_serves(server: ServerProcess) -> None:
    assert server.call("POST", INFER, oip_body()).status == 200


def _send_for_ever(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_compressed_bodies(server: ServerProcess, coding: str) -> None:
    plain = oip_body()
    packed = gzip.compress(plain) if "g" in coding.lower() else zlib.compress(plain)
    answer = server.call("POST", INFER, packed, Content_Encoding=coding)
    assert answer.body == server.call("POST", INFER, plain).body


@pytest.mark.parametrize(
    ("packed", "coding", "status", "says"),
    [
        (gzip.compress(oip_body())[:-9], "gzip", 400, "cut short"),
        (gzip.compress(oip_body()) + b"more", "gzip", 400, "more follows"),
        (oip_body(), "gzip", 400, "expected a body in gzip"),
        (b"", "gzip", 400, "cut short"),
        (b"\x78", "deflate", 400, "deflate"),
        (gzip.compress(oip_body()), "br", 415, "'br'"),
        (gzip.compress(oip_body()), "gzip, gzip", 415, "gzip, gzip"),
        (b"[" * 5000 + b"]" * 5000, "identity", 400, "cannot be read"),
        (oip_body(201), "identity", 413, "201 rows: at most 200"),
    ],
)
def test_bodies_that_are_not_what_they_should(
    server: ServerProcess, packed: bytes, coding: str, status: int, says: str
) -> None:
    answer = server.call("POST", INFER, packed, Content_Encoding=coding)
    assert (answer.status, says in answer.error) == (status, True), answer.error


def test_a_bomb_is_refused_without_the_memory_for_it(server: ServerProcess) -> None:
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packing.compress(bytes(1 << 20)) for _ in range(256)) + packing.flush()
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    for _ in range(5):
        answer = server.call("POST", INFER, bomb, Content_Encoding="gzip")
        assert (answer.status, f"{LIMIT} bytes decompressed" in answer.error) == (413, True)
    assert process.memory_info().rss - before < 64 << 20


def test_a_body_that_is_too_large_is_refused_and_its_client_reads_why(server: ServerProcess) -> None:
    for _ in range(3):
        answer = server.call("POST", INFER, bytes(10 * LIMIT))
        assert (answer.status, f"at most {LIMIT} bytes" in answer.error) == (413, True)
    with connect(server) as connection:
        connection.sendall(CHUNKED)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _send_for_ever(connection, b"10000\r\n" + bytes(0x10000) + b"\r\n")
    refused = tell(server, HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 413 ")  # And no 100 before it.
    assert_serves(server)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        CHUNKED + b"3\r\nabcdef\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_ends_its_connection(server: ServerProcess, data: bytes) -> None:
    answer = tell(server, data)
    assert answer.count(b"HTTP/1.1 400 ") == 1
    assert b"connection: close" in answer
    assert_serves(server)


def test_a_body_that_comes_byte_by_byte_is_read_and_one_that_does_not_end_is_refused(
    server: ServerProcess,
) -> None:
    data = oip_body()
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CHUNKED)
        for start in range(0, len(data), 100):
            part = data[start : start + 100]
            connection.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in part))
        connection.sendall(b"0\r\n\r\n" + LAST)
        assert b'"logits"' in everything(connection)
    with connect(server) as connection:
        connection.sendall(CHUNKED + b"5\r\n{")
        assert everything(connection).startswith(b"HTTP/1.1 408 ")


def test_a_slow_run_ends_by_its_time_limit_while_others_are_answered(server: ServerProcess) -> None:
    with connect(server) as connection:
        connection.sendall(post(infer_body(x=[6000, 1]), SLOW))  # The first request of its shape.
        time.sleep(0.1)
        assert server.call("GET", "/v2/health/live").status == 200
        assert_serves(server)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(15)
        assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")
    limited = json.loads(infer_body(x=[6000])) | {"parameters": {"timeout": 100_000}}
    answer = server.call("POST", SLOW, limited)
    assert (answer.status, "within the 0.1 s that the request allows" in answer.error) == (504, True)
    assert server.call("POST", SLOW, infer_body(x=[1])).status in (200, 504)


def test_a_request_whose_client_has_left_is_not_run(tmp_path: Path) -> None:
    write_slow_onnx(tmp_path / "repository" / "slow")
    with running("onnxruntime", tmp_path) as server, connect(server) as first:
        first.settimeout(60)
        first.sendall(post(infer_body(x=[4000]), SLOW))
        for number in range(1, 3):
            with connect(server) as leaving:
                leaving.sendall(post(infer_body(x=[10**9]), SLOW))
                server.wait_for("/metrics", r'tandem_queue_depth\{model="slow"\} 1')
            # Long before the request's time limit of 30 s.
            server.wait_for("/metrics", rf'code="CANCELLED",model="slow",.*\}} {number}.0', seconds=20)
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.call("POST", SLOW, infer_body(x=[1])).status == 200  # What has left would take weeks.


def test_a_client_that_never_reads_is_let_go(server: ServerProcess) -> None:
    process = psutil.Process(server.process.pid)
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(1000):
                connection.sendall(post(oip_body(200)))
        port = connection.getsockname()[1]
        end = time.monotonic() + 20
        while any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp")):
            assert time.monotonic() < end
            time.sleep(0.1)
    assert_serves(server)


def test_too_many_connections_are_answered_503_until_they_are_fewer(server: ServerProcess) -> None:
    connections = [connect(server) for _ in range(32)]
    assert tell(server, LIVE).startswith(b"HTTP/1.1 503 ")
    for connection in connections:
        connection.close()
    server.wait_for("/v2/health/live")


async def _nobody(_request: Request) -> Response:
    raise AssertionError("nobody asks")


def test_the_first_route_that_fits_is_found_and_what_is_not_served_says_so() -> None:
    read = Route("GET", "/models/(?P<model>[^/]+)(/versions/(?P<version>[0-9]+))?", _nobody)
    run = Route("POST", "/models/(?P<model>[^/]+)/run", _nobody)
    find = router([read, run, Route("GET", "/models/.*", _nobody)])
    assert find("GET", "/models/a")[1] == {"model": "a", "version": None}
    assert find("HEAD", "/models/a/versions/2")[1] == {"model": "a", "version": "2"}
    assert find("POST", "/models/a%2Fb%3A%c3%a9/run")[1] == {"model": "a/b:é"}
    assert find("GET", "/models/a/run")[1] == {}
    with pytest.raises(NotFoundError, match="nothing is served at '/'"):
        find("GET", "/")
    with pytest.raises(
        MethodNotAllowedError, match="expected GET or POST at '/models/a/run', got PUT"
    ) as refused:
        find("PUT", "/models/a/run")
    assert refused.value.headers == ((b"allow", b"GET, POST, HEAD"),)
