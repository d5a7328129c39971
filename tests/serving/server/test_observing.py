"""What operators see of requests: access log, traces, metrics."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from serving.server.access_log import AccessLog
from serving.server.exchange import Exchange
from serving.server.trace_context import parse

from .artifacts import images, write_onnx
from .processes import ServerProcess, tandem_server
from .test_processes import body

pytestmark = pytest.mark.slow

INFER = "/v2/models/fashion/infer"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector(BaseHTTPRequestHandler):
    """An OpenTelemetry collector that keeps the spans it is sent."""

    spans: list[Any]

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            self.spans += [
                (resource.resource, span) for scope in resource.scope_spans for span in scope.spans
            ]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("observing")
    write_onnx(root / "fashion", 1)
    return root


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    servers: list[ServerProcess] = []

    def started(*flags: str) -> ServerProcess:
        servers.append(tandem_server("onnxruntime", repository, tmp_path / "log", *flags))
        servers[-1].wait_for("/v2/health/ready")
        return servers[-1]

    yield started
    for server in servers:
        if server.process.poll() is None:
            assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def infer_by_grpc(server: ServerProcess, model: str, *metadata: tuple[str, str]) -> dict[str, str]:
    """The trailing metadata of a call, which may fail."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 28, 28, 1])
    request = pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[images(1).tobytes()]
    )
    with grpc.insecure_channel(server.grpc) as channel:
        call = rpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request, metadata=metadata)
        call.exception()
        return {name: str(value) for name, value in call.trailing_metadata()}


def test_the_access_log_has_a_line_for_each_request(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    server = start(f"--access-log={file}")
    data = body()
    answer = server.call("POST", INFER, data, traceparent=PARENT)
    server.call("POST", INFER, b"{")
    server.call("GET", "/none")
    infer_by_grpc(server, "fashion", ("traceparent", PARENT))
    infer_by_grpc(server, "none")
    with socket.create_connection(("127.0.0.1", server.http_port)) as gone:
        gone.sendall(f"POST {INFER} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode())
    time.sleep(0.3)
    assert server.stop() == 0
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    lines = [line for line in lines if line["path"] != "/v2/health/ready"]
    rest, bad, none, grpc_one, grpc_none, left = lines
    assert rest["time"].endswith("+00:00")
    assert rest["client"].startswith("127.0.0.1:")
    assert 0 <= rest["queue_milliseconds"] < rest["milliseconds"]
    assert 0 < rest["compute_milliseconds"] < rest["milliseconds"] < 5000
    told = ("method", "path", "protocol", "model", "version", "code", "status", "rows", "trace_id")
    assert [rest[key] for key in told] == [
        *("POST", INFER, "oip-rest", "fashion", "1", "OK", 200, 1, TRACE),
    ]
    assert (rest["request_bytes"], rest["response_bytes"]) == (len(data), len(answer.body))
    assert [bad[key] for key in told[2:]] == ["oip-rest", "fashion", "1", "INVALID_ARGUMENT", 400, 0, ""]
    assert (none["code"], none["status"]) == ("NOT_FOUND", 404)
    assert [grpc_one[key] for key in told] == [
        *("gRPC", "ModelInfer", "oip-grpc", "fashion", "1", "OK", 0, 1, TRACE),
    ]
    assert grpc_one["request_bytes"] > 784 * 4
    assert grpc_one["response_bytes"] > 80
    assert (grpc_none["code"], grpc_none["model"]) == ("NOT_FOUND", "")
    assert (left["code"], left["status"]) == ("CANCELLED", 499)


def test_nothing_that_a_client_sends_leaves_its_line(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    server = start(f"--access-log={file}")
    forged, escapes = "%0A%7B%22forged%22:1%7D", "%1B%5B31m%C2%85%E2%80%A8%ED%A0%80%00"
    for path in (
        f"/{forged}",
        f"/{escapes}",
        "/" + "a" * 5000,
        f"/v2/models/{forged}",
        f"/v2/models/{escapes}",
    ):
        server.call("GET", path, traceparent='00-"{}')
    quotes = '/","path":"/forged'
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(f"GET {quotes} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")
    assert server.stop() == 0
    text = file.read_bytes()
    assert text.isascii()
    assert b"\x1b" not in text
    paths = [json.loads(line)["path"] for line in text.decode().splitlines()]
    paths = [path for path in paths if path != "/v2/health/ready"]
    assert paths[:2] == [f"/{forged}", f"/{escapes}"]
    assert len(paths[2]) == 500
    assert paths[5:] == [quotes]


def test_a_sampled_log_has_every_failure(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = start("--access-log=-", "--access-log-sample=0")
    for _ in range(5):
        server.call("GET", "/v2/health/live")
        server.call("GET", "/none")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["path"] != "/v2/health/ready"] == [404] * 5


def test_a_log_that_cannot_keep_up_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.server.access_log.MOST_WAITING", 10)
    dropped: list[int] = []
    log = AccessLog(str(tmp_path / "log"), 1.0, lambda: dropped.append(1))
    held = threading.Event()
    write = log._file.write
    monkeypatch.setattr(
        log,
        "_file",
        type("Slow", (), {"write": lambda _, data: held.wait() and write(data), "flush": lambda _: None})(),
    )
    for _ in range(100):
        log.write(Exchange("GET", "/", "x"))
    held.set()
    log.close()
    log._file.flush()
    assert len(dropped) >= 100 - 10 - 10
    assert len(dropped) < 100


@pytest.mark.parametrize(
    ("given", "continued"),
    [
        (PARENT, True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"01-{TRACE}-{SPAN}-01-more", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        (f"00-{TRACE}-{SPAN}-01\n", True),
        ("", False),
        ("\x00", False),
    ],
)
def test_trace_contexts(given: str, continued: bool) -> None:
    found = parse(given)
    assert (found is not None) == continued
    if found is not None:
        assert (found.trace_id, found.span_id) == (TRACE, SPAN)


def test_a_trace_is_returned_and_none_is_made_unasked(start: Callable[..., ServerProcess]) -> None:
    server = start()
    answer = server.call("POST", INFER, body(), traceparent=PARENT, tracestate="a=b,c=d")
    assert (answer.headers["traceparent"], answer.headers["tracestate"]) == (PARENT, "a=b,c=d")
    refused = server.call("POST", INFER, b"{", traceparent=PARENT)
    assert (refused.status, refused.headers["traceparent"]) == (400, PARENT)
    for parent in ("", "00-nonsense"):
        answer = server.call("GET", "/v2/health/live", traceparent=parent)
        assert "traceparent" not in answer.headers
    assert infer_by_grpc(server, "fashion", ("traceparent", PARENT))["traceparent"] == PARENT
    assert infer_by_grpc(server, "none", ("traceparent", PARENT))["traceparent"] == PARENT
    assert "traceparent" not in infer_by_grpc(server, "fashion")


def test_traces_are_made_where_they_are_asked_for(start: Callable[..., ServerProcess]) -> None:
    server = start("--new-traces")
    made = {parse(server.call("GET", "/v2/health/live").headers["traceparent"]) for _ in range(3)}
    assert len(made) == 3
    assert None not in made
    assert server.call("GET", "/v2/health/live", traceparent=PARENT).headers["traceparent"] == PARENT


def test_spans_reach_a_collector(start: Callable[..., ServerProcess]) -> None:
    Collector.spans = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        server = start(f"--otlp-endpoint=http://127.0.0.1:{collector.server_port}")
        answer = server.call("POST", INFER, body(), traceparent=PARENT)
        returned = parse(answer.headers["traceparent"])
        server.call("POST", INFER, b"{")
        infer_by_grpc(server, "fashion", ("traceparent", PARENT))
        assert server.stop() == 0  # What is not sent yet is sent then.
        collector.shutdown()
    found = {span.name: span for _, span in Collector.spans if span.name != "GET"}
    assert set(found) == {"oip-rest fashion", "oip-grpc fashion"}
    ours = [span for _, span in Collector.spans if span.parent_span_id.hex() == SPAN]
    assert [span.trace_id.hex() for span in ours] == [TRACE, TRACE]
    assert returned is not None
    assert (returned.trace_id, returned.span_id) == (TRACE, ours[0].span_id.hex())
    told = {a.key: a.value for a in ours[0].attributes}
    assert told["http.response.status_code"].int_value == 200
    assert told["tandem.model"].string_value == "fashion"
    taken = (ours[0].end_time_unix_nano - ours[0].start_time_unix_nano) / 1e9
    assert 0 < told["tandem.compute_seconds"].double_value < taken < 5
    named = {a.key: a.value.string_value for a in Collector.spans[0][0].attributes}
    assert named["service.name"] == "tandem-server"


def test_a_collector_that_is_not_there_costs_no_answer(start: Callable[..., ServerProcess]) -> None:
    server = start("--otlp-endpoint=http://127.0.0.1:9")
    assert [server.call("POST", INFER, body()).status for _ in range(5)] == [200] * 5
    server.process.terminate()
    assert server.process.wait(20) == 0


def test_metrics_tell_waiting_from_running_and_leave_refusals_out_of_the_latency(
    start: Callable[..., ServerProcess],
) -> None:
    server = start()
    for _ in range(3):
        assert server.call("POST", INFER, body()).status == 200
        assert server.call("POST", INFER, b"{").status == 400
    page = server.call("GET", "/metrics").body.decode()
    for line in (
        'tandem_request_seconds_count{model="fashion",protocol="oip-rest"} 3.0',
        'tandem_queue_seconds_count{model="fashion"} 3.0',
        'tandem_run_seconds_count{model="fashion"} 3.0',
        'tandem_batch_rows_count{model="fashion"} 3.0',
        'tandem_queue_depth{model="fashion"} 0.0',
        'tandem_requests_total{code="INVALID_ARGUMENT",model="fashion",protocol="oip-rest",version="1"} 3.0',
        "tandem_access_log_dropped_total 0.0",
        "tandem_build_info{",
        "process_resident_memory_bytes ",
    ):
        assert line in page
