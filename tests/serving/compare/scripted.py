"""A server of the Open Inference Protocol on loopback whose latency, answers and faults are known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[int], float]
"""From the number of a request to its answer; may sleep, and may raise, which is answered with status 500."""


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[str]:
    """The address of a model `m` with the input `x` float32 [-1, 2] and the output `y`, x's first value times the
    script's answer; the connections are kept. `/predict` takes and gives plain JSON."""
    lock = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        # Buffered: the head and the body of an answer leave in one packet.
        wbufsize = -1

        def do_GET(self) -> None:
            tensors = {"inputs": [("x", [-1, 2])], "outputs": [("y", [-1, 1])]}
            described = {
                kind: [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in own]
                for kind, own in tensors.items()
            }
            self.answer(200, {"name": "m", **described})

        def do_POST(self) -> None:
            nonlocal count
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            own = self.path == "/predict"
            data = [v for row in body["x"] for v in row] if own else body["inputs"][0]["data"]
            with lock:
                number, count = count, count + 1
            try:
                factor = script(number)
            except Exception as error:  # noqa: BLE001 - a fault by script
                self.answer(500, {"error": str(error)})
                return
            rows = [[factor * value] for value in data[::2]]
            if own:
                self.answer(200, {"y": rows})
                return
            output = {
                "name": "y",
                "datatype": "FP32",
                "shape": [len(rows), 1],
                "data": [value for row in rows for value in row],
            }
            self.answer(200, {"model_name": "m", "outputs": [output]})

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"oip+http://127.0.0.1:{server.server_port}/v2/models/m"
        server.shutdown()


def sleeping(milliseconds: float, answer: float = 1.0) -> Script:
    """Answer after a time."""

    def script(_number: int) -> float:
        time.sleep(milliseconds / 1000)
        return answer

    return script
