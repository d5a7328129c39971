"""The flags of `tandem-server`, and those of both commands."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from serving.server import GRPC_PORT, HTTP_PORT, VERSION
from serving.server.backends.base import BACKENDS

Number = TypeVar("Number", int, float)


def number(
    kind: Callable[[str], Number], fits: Callable[[Number], bool], expected: str
) -> Callable[[str], Number]:
    """Return a parser of arguments whose error names `expected`."""

    def read(text: str) -> Number:
        with suppress(ValueError):
            value = kind(text)
            if fits(value):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return read


port = number(int, lambda value: 0 <= value <= 65535, "a port from 0 to 65535")
_count = number(int, lambda value: value >= 1, "a whole number from 1 on")
_share = number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
_seconds = number(float, lambda value: 0 < value < math.inf, "a number of seconds above 0")
seconds_from_0 = number(float, lambda value: 0 <= value < math.inf, "a number of seconds from 0 on")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `tandem-server`."""
    made = argparse.ArgumentParser(
        "tandem-server",
        description="Serve a model repository by the Open Inference Protocol, REST and gRPC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("--version", action="version", version=f"tandem-server {VERSION}")
    add("--backend", choices=BACKENDS, required=True, help="the runtime")
    add("--model-repository", type=Path, required=True, metavar="DIR", help="holds <model>/<version>/")
    add("--http-port", type=port, default=HTTP_PORT, help="REST and /metrics; 0: any free port")
    add("--grpc-port", type=port, default=GRPC_PORT, help="gRPC; 0: any free port")
    add("--poll-seconds", type=_seconds, default=1.0, help="how often to look for another version")
    add("--threads", type=_count, default=1, help="threads within one run of a model")
    add("--batching", action="store_true", help="let requests share runs of models that have no manifest")
    add("--repository-control", action="store_true", help="let clients load and unload models")
    add("--request-timeout-seconds", type=_seconds, default=30.0, help="for an HTTP request and its response")
    add_common(made)
    return made


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags of both commands; underscores are accepted, as in TensorFlow Serving's."""

    def add(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        names = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        parser.add_argument(*names, type=kind, default=default, help=text)

    add("host", str, "127.0.0.1", "address to listen on")
    add("max-body-bytes", _count, 32 << 20, "of a REST or gRPC request")
    add("max-rows", _count, 1024, "in one request")
    add("max-batch-rows", _count, 64, "in a run shared by requests")
    add("max-queue", _count, 512, "requests waiting for one model")
    add("pause-seconds", seconds_from_0, 1.0, "between being not ready and the stop")
    add("grace-seconds", seconds_from_0, 10.0, "to finish requests when it stops")
    add("max-connections", _count, 1000, "of HTTP, and calls of gRPC, at once")
    add("idle-timeout-seconds", _seconds, 75.0, "for an HTTP connection without a request")
    add("access-log", str, "off", "off, a file, or - (standard output): a line of JSON for each request")
    add("access-log-sample", _share, 1.0, "the share of successful requests that is logged, 0 to 1")
    add("otlp-endpoint", str, None, "URL of an OpenTelemetry collector to send spans to")
    # Only `tandem-tf-serving` has flags for these.
    parser.set_defaults(grpc_socket="", grpc_options=(), cors=False, retries=0, retry_seconds=0.0)
