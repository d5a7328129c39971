"""The flags of `tandem-server`, and the limits that both commands take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from serving.server import cores
from serving.server.backends.base import BACKENDS
from serving.server.lifecycle import Listening

MEBIBYTE = 1024 * 1024
Number = TypeVar("Number", int, float)


def _read(
    kind: Callable[[str], Number], fits: Callable[[Number], bool], expected: str
) -> Callable[[str], Number]:
    """What reads an argument and, where it is none, says what was `expected`."""

    def read(text: str) -> Number:
        with suppress(ValueError):
            value = kind(text)
            if fits(value):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return read


port = _read(int, lambda value: 0 <= value <= 65535, "a port from 0 to 65535")
_count = _read(int, lambda value: value >= 1, "a whole number from 1 on")
_threads = _read(
    lambda text: cores.available() if text == "auto" else int(text),
    lambda value: value >= 1,
    "a whole number from 1 on, or auto",
)
_share = _read(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
_seconds = _read(float, lambda value: 0 < value < math.inf, "a number of seconds above 0")
any_seconds = _read(float, math.isfinite, "a number of seconds")
seconds_from_0 = _read(float, lambda value: 0 <= value < math.inf, "a number of seconds from 0 on")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "tandem-server",
        description="Serve a model repository by the Open Inference Protocol, REST and gRPC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("--backend", choices=BACKENDS, required=True, help="the runtime")
    add("--model-repository", type=Path, required=True, metavar="DIR", help="holds <model>/<version>/")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--http-port", type=port, default=8000, help="REST and /metrics; 0: any free port")
    add("--grpc-port", type=port, default=8001, help="gRPC; 0: any free port")
    add("--poll-seconds", type=_seconds, default=1.0, help="how often to look for another version")
    add("--threads", type=_threads, default=1, help='threads within one run of a model; "auto": one a core')
    add("--batching", action="store_true", help="let requests share runs of models that have no manifest")
    add(
        "--repository-control",
        action="store_true",
        help="let clients load and unload models; without it they are refused",
    )
    add_limits(made)
    add(
        "--request-timeout-seconds",
        type=_seconds,
        default=30.0,
        help="for an HTTP request's body and its response together",
    )
    return made


def listening(
    options: argparse.Namespace, http: int | None, grpc: int | None, poll_seconds: float
) -> Listening:
    """Where to listen, on these ports, and for how long to wait."""
    return Listening(
        options.host,
        http,
        grpc,
        poll_seconds,
        options.pause_seconds,
        options.grace_seconds,
        options.max_connections,
        options.idle_timeout_seconds,
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The flags that both commands have."""
    add = parser.add_argument
    add(
        "--max-body-bytes",
        "--max_body_bytes",
        type=_count,
        default=32 * MEBIBYTE,
        help="of a REST or gRPC request",
    )
    add("--max-rows", "--max_rows", type=_count, default=1024, help="in one request")
    add("--max-batch-rows", "--max_batch_rows", type=_count, default=64, help="in a run shared by requests")
    add("--max-queue", "--max_queue", type=_count, default=512, help="requests waiting for one model")
    add(
        "--pause-seconds",
        "--pause_seconds",
        type=seconds_from_0,
        default=1.0,
        help="between being not ready and the stop, for load balancers to notice",
    )
    add(
        "--grace-seconds",
        "--grace_seconds",
        type=seconds_from_0,
        default=10.0,
        help="to finish requests when it stops",
    )
    add(
        "--max-connections",
        "--max_connections",
        type=_count,
        default=1000,
        help="of HTTP, and calls of gRPC, at once",
    )
    add(
        "--idle-timeout-seconds",
        "--idle_timeout_seconds",
        type=_seconds,
        default=75.0,
        help="for an HTTP connection without a request",
    )
    add(
        "--access-log",
        "--access_log",
        default="off",
        metavar="off|FILE|-",
        help="a line of JSON for each request; -: standard output",
    )
    add(
        "--access-log-sample",
        "--access_log_sample",
        type=_share,
        default=1.0,
        help="the share of requests that is logged, 0 to 1; those that fail always are",
    )
    add(
        "--otlp-endpoint", "--otlp_endpoint", metavar="URL", help="send spans to this OpenTelemetry collector"
    )
