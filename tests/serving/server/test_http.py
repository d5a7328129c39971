"""HTTP as hostile and as slow clients speak it, over raw sockets, beside a client that is served."""

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

from .artifacts import images, write_onnx
from .processes import ServerProcess, tandem_server

pytestmark = pytest.mark.slow

INFER = "/v2/models/fashion/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
MEBIBYTE = 1024 * 1024


def body(rows: int = 1) -> bytes:
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 28, 28, 1]}
    return json.dumps({"inputs": [tensor | {"data": images(rows).ravel().tolist()}]}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """At most 40 connections, 0.5 s for a head, 1.5 s between requests, 3 s for a body, bodies of up to 4 MiB."""
    root = tmp_path_factory.mktemp("http")
    write_onnx(root / "repository" / "fashion", 1)
    server = tandem_server(
        "onnxruntime",
        root / "repository",
        root / "log",
        "--max-connections=40",
        "--head-timeout-seconds=0.5",
        "--idle-timeout-seconds=1.5",
        "--request-timeout-seconds=3",
        "--max-body-bytes=4194304",
    )
    server.wait_for("/v2/health/ready")
    yield server
    assert "Traceback" not in server.log, server.log
    assert server.stop() == 0


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=15)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    got = b""
    try:
        while chunk := connection.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def is_alive(connection: socket.socket) -> bool:
    """Whether a connection that stays open answers."""
    connection.sendall(LIVE)
    answer = b""
    while not answer.endswith(b"}"):
        chunk = connection.recv(4096)
        assert chunk, answer
        answer += chunk
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"live":true}')


def tell(server: ServerProcess, data: bytes) -> bytes:
    with connect(server) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return everything(connection)


def assert_serves(server: ServerProcess) -> None:
    assert server.call("POST", INFER, body()).status == 200


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "raw deflate"])
def test_compressed_bodies(server: ServerProcess, coding: str) -> None:
    plain = body()
    packed = gzip.compress(plain) if "g" in coding.lower() else zlib.compress(plain)
    if coding == "raw deflate":
        packed, coding = packed[2:-4], "deflate"
    assert (
        server.call("POST", INFER, packed, Content_Encoding=coding).body
        == server.call("POST", INFER, plain).body
    )


@pytest.mark.parametrize(
    ("packed", "coding", "status", "says"),
    [
        (gzip.compress(body())[:-9], "gzip", 400, "cut short"),
        (gzip.compress(body()) + b"more", "gzip", 400, "more follows"),
        (gzip.compress(b"") * 50_000, "gzip", 400, "more follows"),
        (body(), "gzip", 400, "expected a body in gzip"),
        (b"", "gzip", 400, "cut short"),
        (b"\x78", "deflate", 400, "deflate"),
        (gzip.compress(body()), "br", 415, "'br'"),
        (gzip.compress(body()), "gzip, gzip", 415, "gzip, gzip"),
    ],
)
def test_bodies_that_are_not_what_they_say(
    server: ServerProcess, packed: bytes, coding: str, status: int, says: str
) -> None:
    answer = server.call("POST", INFER, packed, Content_Encoding=coding)
    assert (answer.status, says in answer.error) == (status, True), answer.error


def test_a_bomb_is_refused_without_the_memory_for_it(server: ServerProcess) -> None:
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packing.compress(bytes(MEBIBYTE)) for _ in range(256)) + packing.flush()
    assert len(bomb) < MEBIBYTE
    process = psutil.Process(server.process.pid)
    levels = []
    for _ in range(20):
        answer = server.call("POST", INFER, bomb, Content_Encoding="gzip")
        assert (answer.status, "4194304 bytes decompressed" in answer.error) == (413, True)
        levels.append(process.memory_info().rss)
    assert max(levels) - levels[4] < 16 * MEBIBYTE
    assert max(levels) < 256 * MEBIBYTE
    assert_serves(server)


@pytest.mark.parametrize(
    ("accepted", "coding"), [("gzip, deflate", "gzip"), ("deflate, gzip;q=0", "deflate")]
)
def test_large_responses_are_compressed_for_those_who_accept_it(
    server: ServerProcess, accepted: str, coding: str
) -> None:
    many = body(200)
    plain = server.call("POST", INFER, many)
    assert "content-encoding" not in plain.headers
    with connect(server) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: {accepted}\r\n"
        connection.sendall(f"{head}Content-Length: {len(many)}\r\n\r\n".encode() + many)
        answer = everything(connection)
    head_lines, _, packed = answer.partition(b"\r\n\r\n")
    assert f"content-encoding: {coding}".encode() in head_lines
    assert zlib.decompress(packed, 31 if coding == "gzip" else 15) == plain.body
    assert "content-encoding" not in server.call("POST", INFER, body(), Accept_Encoding=accepted).headers


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(1000)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\nab", 400),
        (f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(), 400),
        (f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n".encode(), 400),
        (f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{'f' * 40}\r\n".encode(), 400),
        (f"POST {INFER} HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".encode(), 400),
        (b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x00" * 100, 400),
    ],
)
def test_heads_and_framing_that_are_wrong_end_the_connection(
    server: ServerProcess, data: bytes, status: int
) -> None:
    answer = tell(server, data)
    if answer:  # What is still on its way when the server closes may cost the client its answer.
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"connection: close" in answer
        assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]
    else:
        assert len(data) > 60_000
    assert_serves(server)


def test_requests_in_one_piece_are_answered_in_their_order(server: ServerProcess) -> None:
    data = body()
    infer = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    answer = tell(server, (infer + LIVE) * 20 + b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n")
    lines = [line for line in answer.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert len(lines) == 41
    assert answer.count(b'"logits"') == answer.count(b'"live"') == 20
    assert answer.index(b'"logits"') < answer.index(b'"live"')
    assert b"404" in lines[-1]


def test_what_came_before_a_wrong_request_is_answered(server: ServerProcess) -> None:
    answer = tell(server, LIVE * 3 + b"\x00garbage")
    assert answer.count(b"HTTP/1.1 200") == 3
    assert b"connection: close" in answer


def test_an_upgrade_that_is_not_known_is_passed_over(server: ServerProcess) -> None:
    data = body()
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    head += f"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nContent-Length: {len(data)}\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head.encode())
        time.sleep(0.05)
        connection.sendall(data + LIVE.replace(b"Host", b"Connection: close\r\nHost"))
        answer = everything(connection)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b'"logits"' in answer


def test_silent_and_half_sent_connections_are_closed_while_others_are_served(server: ServerProcess) -> None:
    begun = [
        b"",
        b"\r\n",
        b"P",
        b"POST /v2/models/fashion/infer HTTP/1.1\r\nHost:",
        f"POST {INFER} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode(),
        f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{".encode(),
        LIVE,
    ]
    connections = [connect(server) for _ in range(35)]
    for number, connection in enumerate(connections):
        connection.sendall(begun[number % len(begun)])
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert_serves(server)
    for number, connection in enumerate(connections):
        with connection:
            answer = everything(connection)  # which ends, because the server closes
        expected = [b"", b"408", b"408", b"408", b"408", b"408", b"200"][number % len(begun)]
        assert answer[9:12] == expected, (begun[number % len(begun)], answer)


def test_a_connection_too_many_is_answered_503_and_closed(server: ServerProcess) -> None:
    server.call("GET", "/v2/health/live")
    connections = [connect(server) for _ in range(39)]
    assert all(is_alive(connection) for connection in connections)
    answer = tell(server, LIVE)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in answer
    assert b"retry-after: 1" in answer
    assert is_alive(connections[0])  # The others are as they were.
    for connection in connections:
        connection.close()
    time.sleep(0.1)
    assert_serves(server)


def test_a_client_that_never_reads_is_let_go(server: ServerProcess) -> None:
    process = psutil.Process(server.process.pid)
    many = body(200)
    request = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(many)}\r\n\r\n".encode() + many
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(1000):
                connection.sendall(request)
        port = connection.getsockname()[1]
        end = time.monotonic() + 10
        while any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp")):
            assert time.monotonic() < end
            time.sleep(0.1)
    assert_serves(server)


def test_requests_whose_client_has_gone_are_not_run(tmp_path: Path) -> None:
    """Their bodies take the place of others only until they leave."""
    write_onnx(tmp_path / "repository" / "fashion", 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log")
    try:
        server.wait_for("/v2/health/ready")
        data = body()
        for _ in range(30):
            with connect(server) as connection:
                connection.sendall(f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode())
                connection.sendall(data[:-1])
        assert_serves(server)
        page = server.call("GET", "/metrics").body.decode()
        assert 'tandem_batch_rows_count{model="fashion"} 1.0' in page
        assert "Traceback" not in server.log
    finally:
        assert server.stop() == 0
