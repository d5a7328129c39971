import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from serving.settings import Settings
from serving.torchserve import ready
from serving.torchserve.config import state


class Server(BaseHTTPRequestHandler):
    """A management API with one model, whose worker's state the test sets."""

    worker: str | None = "READY"

    def do_GET(self) -> None:
        known = self.path == "/models/mine"
        workers = [{"status": self.worker}] if self.worker else []
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps([{"modelVersion": "1", "workers": workers}] if known else {}).encode())

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture(params=["unix", "http"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Server]]:
    class Own(Server):
        pass

    listener: UnixStreamServer | HTTPServer
    if request.param == "unix":
        listener = UnixStreamServer(str(tmp_path / "management.sock"), Own)
        address = f"unix:{tmp_path / 'management.sock'}"
    else:
        listener = HTTPServer(("127.0.0.1", 0), Own)
        address = f"http://127.0.0.1:{listener.server_port}"
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("TANDEM_ARTIFACTS", str(tmp_path))
    monkeypatch.setenv("TANDEM_MODEL", "mine")
    folder = state(Settings.from_environment())
    folder.mkdir(parents=True)
    (folder / "management").write_text(address)
    yield Own
    listener.shutdown()
    listener.server_close()


def test_it_passes_once_the_worker_has_loaded_the_model(server: type[Server]) -> None:
    ready.main()


@pytest.mark.parametrize("worker", ["UNLOADING", None])
def test_it_fails_while_there_is_no_worker_that_answers(server: type[Server], worker: str | None) -> None:
    server.worker = worker
    with pytest.raises(SystemExit, match="no worker of mine is ready"):
        ready.main()


def test_it_fails_while_the_server_has_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_ARTIFACTS", str(tmp_path))
    with pytest.raises(SystemExit, match="was not started"):
        ready.main()
