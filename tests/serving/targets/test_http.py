from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving import targets
from serving.settings import Settings
from serving.targets.base import port_setting


@contextmanager
def answering(body: bytes) -> Iterator[int]:
    """A server on loopback that answers this to every GET; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'"hello"', b'{"version": "latest", "versions": [], "model_version_status": 1}', b"<p>"],
)
@pytest.mark.parametrize("name", targets.NAMES)
def test_another_server_on_a_target_s_port_serves_no_version(name: str, body: bytes) -> None:
    with answering(body) as port:
        settings = Settings(**{port_setting(name, "http"): port})  # type: ignore[arg-type]
        assert targets.load(name).served_version(settings) is None
        assert targets.load(name).refusal(settings, 1, []) == ""
