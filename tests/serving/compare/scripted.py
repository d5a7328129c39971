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
    script's answer; the connections are kept. It speaks TF Serving's REST, too, and at `/predict` JSON of its own."""
    lock = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        # Buffered: the head and the body of an answer leave in one packet.
        wbufsize = -1

        def do_GET(self) -> None:
            tensors = {"inputs": [("x", [-1, 2])], "outputs": [("y", [-1, 1])]}
            if self.path.startswith("/v1"):
                sizes = {name: [{"size": str(n)} for n in shape] for [(name, shape)] in tensors.values()}
                signature = {
                    kind: {
                        name: {"dtype": "DT_FLOAT", "tensor_shape": {"dim": sizes[name]}} for name, _ in own
                    }
                    for kind, own in tensors.items()
                }
                definition = {"signature_def": {"serving_default": signature}}
                self.answer(200, {"metadata": {"signature_def": definition}})
                return
            described = {
                kind: [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in own]
                for kind, own in tensors.items()
            }
            self.answer(200, {"name": "m", **described})

        def do_POST(self) -> None:
            nonlocal count
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = body.get("x", body.get("instances"))
            data = body["inputs"][0]["data"] if rows is None else [value for row in rows for value in row]
            with lock:
                number, count = count, count + 1
            try:
                factor = script(number)
            except Exception as error:  # noqa: BLE001 - a fault by script
                self.answer(500, {"error": str(error)})
                return
            found = [factor * value for value in data[::2]]
            output = {"name": "y", "datatype": "FP32", "shape": [len(found), 1], "data": found}
            answers = {
                "/predict": {"y": [[value] for value in found]},
                "/v1/models/m:predict": {"predictions": [[value] for value in found]},
            }
            self.answer(200, answers.get(self.path, {"model_name": "m", "outputs": [output]}))

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
