"""What operators see of requests: access log, traces, metrics."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import service_pb2_grpc as rpc

from serving.server.access_log import AccessLog
from serving.server.metrics import RequestRecord

from .artifacts import write_onnx
from .load import infer_request
from .processes import ServerProcess, oip_body, running

INFER = "/v2/models/fashion/infer"
GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"

Start = Callable[..., ServerProcess]


class Collector(BaseHTTPRequestHandler):
    """An OpenTelemetry collector that keeps the spans it is sent."""

    spans: list[tuple[Any, Any]]

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            self.spans += [(resource.resource, span) for part in resource.scope_spans for span in part.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    write_onnx(tmp_path / "repository" / "fashion", 1)
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(running("onnxruntime", tmp_path, *flags))


def infer_by_grpc(server: ServerProcess, model: str) -> None:
    """A call of a caller's trace, which may fail."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = rpc.GRPCInferenceServiceStub(channel).ModelInfer.future(
            infer_request(model), metadata=[("traceparent", PARENT)]
        )
        call.exception()


def logged(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    return [line for line in lines if line["path"] != "/v2/health/ready"]


def test_the_access_log_has_a_line_for_each_request(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    server = start(f"--access-log={file}")
    data = oip_body()
    answer = server.call("POST", INFER, data)
    server.call("POST", INFER, b"{")
    server.call("GET", "/none")
    infer_by_grpc(server, "fashion")
    infer_by_grpc(server, "none")
    with socket.create_connection(("127.0.0.1", server.http_port)) as gone:
        gone.sendall(f"POST {INFER} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode())
    time.sleep(0.3)
    assert server.stop() == 0
    rest, bad, none, grpc_one, grpc_none, left = logged(file)
    assert rest["time"].endswith("+00:00")
    assert rest["client"].startswith("127.0.0.1:")
    assert 0 <= rest["queue_milliseconds"] < rest["milliseconds"]
    assert 0 < rest["run_milliseconds"] < rest["milliseconds"] < 5000
    told = ("method", "path", "protocol", "model", "version", "code", "status", "rows")
    assert [rest[key] for key in told] == ["POST", INFER, "oip-rest", "fashion", "1", "OK", 200, 1]
    assert (rest["request_bytes"], rest["response_bytes"]) == (len(data), len(answer.body))
    assert [bad[key] for key in told[2:]] == ["oip-rest", "fashion", "1", "INVALID_ARGUMENT", 400, 0]
    assert (none["code"], none["status"]) == ("NOT_FOUND", 404)
    assert [grpc_one[key] for key in told] == ["gRPC", GRPC_INFER, "oip-grpc", "fashion", "1", "OK", 0, 1]
    assert grpc_one["client"].startswith("127.0.0.1:")
    assert grpc_one["request_bytes"] > 784 * 4
    assert grpc_one["response_bytes"] > 80
    assert (grpc_none["code"], grpc_none["model"]) == ("NOT_FOUND", "")
    assert (left["code"], left["status"]) == ("CANCELLED", 499)


def test_nothing_that_a_client_sends_leaves_its_line(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    server = start(f"--access-log={file}")
    forged, escapes = "/%0A%7B%22forged%22:1%7D", "/%1B%5B31m%C2%85%E2%80%A8%ED%A0%80%00"
    quotes = '/","path":"/forged'
    for path in (forged, escapes, "/" + "a" * 5000, f"/v2/models{forged}"):
        server.call("GET", path)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(f"GET {quotes} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")
    assert server.stop() == 0
    assert file.read_bytes().isascii()
    assert b"\x1b" not in file.read_bytes()
    paths = [line["path"] for line in logged(file)]
    assert paths == [forged, escapes, "/" + "a" * 499, f"/v2/models{forged}", quotes]


def test_a_sampled_log_has_every_failure(start: Start) -> None:
    server = start("--access-log=-", "--access-log-sample=0")
    for _ in range(5):
        server.call("GET", "/v2/health/live")
        server.call("GET", "/none")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["path"] != "/v2/health/ready"] == [404] * 5


def test_a_disk_that_is_slow_or_full_costs_lines_and_no_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    opened: list[int] = []
    reader = threading.Thread(
        target=lambda: opened.append(os.open(tmp_path / "slow", os.O_RDONLY)), daemon=True
    )
    reader.start()
    dropped: list[int] = []
    log = AccessLog(str(tmp_path / "slow"), 1.0, lambda: dropped.append(1))
    reader.join()
    for _ in range(20_000):  # Nobody reads: what the pipe and the queue do not hold is dropped.
        log.write(RequestRecord("GET", "/", "x"))
    assert 5_000 < len(dropped) < 10_000
    threading.Thread(target=lambda: [*iter(lambda: os.read(opened[0], 1 << 16), b"")], daemon=True).start()
    log.close()

    full: list[int] = []
    log = AccessLog("/dev/full", 1.0, lambda: full.append(1))
    for _ in range(3):
        log.write(RequestRecord("GET", "/", "x"))
        time.sleep(0.05)
    log.close()
    assert len(full) == 3


def test_spans_continue_their_callers_traces_and_reach_a_collector(start: Start) -> None:
    Collector.spans = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        server = start(f"--otlp-endpoint=http://127.0.0.1:{collector.server_port}")
        assert server.call("POST", INFER, oip_body(), traceparent=PARENT).status == 200
        infer_by_grpc(server, "fashion")
        infer_by_grpc(server, "none")
        server.call("GET", "/v2/health/live")
        assert server.stop() == 0  # What is not sent yet is sent then.
        collector.shutdown()
    ours = [span for _, span in Collector.spans if span.parent_span_id.hex() == SPAN]
    assert {span.trace_id.hex() for span in ours} == {TRACE}
    attributes = [
        {a.key: a.value.string_value or a.value.int_value for a in span.attributes} for span in ours
    ]
    http, called, failed = attributes
    assert http["http.status_code"] == 200
    assert http["http.target"] == INFER
    assert (called["rpc.method"], called["rpc.grpc.status_code"]) == ("ModelInfer", 0)
    assert failed["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(Collector.spans) > 3  # And those of nobody's trace.
    named = {a.key: a.value.string_value for a in Collector.spans[0][0].attributes}
    assert named["service.name"] == "tandem-server"


def test_metrics_tell_waiting_from_running_and_leave_refusals_out_of_the_latency(start: Start) -> None:
    server = start()
    for _ in range(3):
        assert server.call("POST", INFER, oip_body(2)).status == 200
        assert server.call("POST", INFER, b"{").status == 400
    page = server.call("GET", "/metrics").body.decode()
    for line in (
        'tandem_request_seconds_count{model="fashion",protocol="oip-rest"} 3.0',
        'tandem_queue_seconds_count{model="fashion"} 3.0',
        'tandem_run_seconds_count{model="fashion"} 3.0',
        'tandem_batch_rows_sum{model="fashion"} 6.0',
        'tandem_queue_depth{model="fashion"} 0.0',
        'tandem_model_version{model="fashion",version="1"} 1.0',
        'tandem_requests_total{code="INVALID_ARGUMENT",model="fashion",protocol="oip-rest",version="1"} 3.0',
        "tandem_access_log_dropped_total 0.0",
        "process_resident_memory_bytes ",
    ):
        assert line in page
