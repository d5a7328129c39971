"""Two versions behind the gateway, by weight."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from serving.settings import Settings
from serving.targets import tfjs
from tests.serving.gateway import free_ports, running, settings_in


class Version(ThreadingHTTPServer):
    """A model server that answers with its own name."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name = name

    def __enter__(self) -> "Version":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Version

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(tfjs, "install", lambda *_: tmp_path)
    return settings_in(tmp_path)


@pytest.fixture
def ports() -> tuple[int, int]:
    first, second = free_ports(2)
    return first, second


@pytest.fixture
def gateway(settings: Settings, ports: tuple[int, int]) -> Iterator[str]:
    environment = {
        "GATEWAY_LITERT": " ".join(f"127.0.0.1:{port}" for port in ports),
        "GATEWAY_WEIGHTS": "9 1",
        "GATEWAY_RETRY": "2s",
    }
    with running(settings, environment):
        yield f"http://{settings.host}:{settings.tfjs_port}/api/litert/v2/models/fashion/infer"


def ask(gateway: str, times: int) -> Counter[str]:
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        answers = [pool.request("POST", gateway, body=b"picture") for _ in range(times)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.data.decode() for answer in answers)


def test_requests_are_divided_by_weight(gateway: str, ports: tuple[int, int]) -> None:
    with Version("current", ports[0]), Version("candidate", ports[1]):
        assert ask(gateway, 100) == {"current": 90, "candidate": 10}


def test_the_share_of_one_that_is_not_there_goes_to_the_other(gateway: str, ports: tuple[int, int]) -> None:
    with Version("current", ports[0]):
        assert ask(gateway, 30) == {"current": 30}
