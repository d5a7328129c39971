"""The flags of `tandem-server`, and the limits that both commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from serving.server.backends.base import BACKENDS

MEBIBYTE = 1024 * 1024


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
    add("--poll-seconds", type=_positive, default=1.0, help="how often to look for another version")
    add("--threads", type=int, default=1, help="threads within one run of a model")
    add_limits(made)
    add(
        "--request-timeout-seconds",
        type=float,
        default=30.0,
        help="for a request's body and its answer together",
    )
    return made


def port(text: str) -> int:
    """A port number, or 0."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError(text)
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The flags that both commands have."""
    add = parser.add_argument
    add(
        "--max-body-bytes",
        "--max_body_bytes",
        type=int,
        default=32 * MEBIBYTE,
        help="of a REST or gRPC request",
    )
    add("--max-rows", "--max_rows", type=int, default=1024, help="in one request")
    add("--max-batch-rows", "--max_batch_rows", type=int, default=64, help="in a run shared by requests")
    add("--max-queue", "--max_queue", type=int, default=512, help="requests waiting for one model")
    add(
        "--grace-seconds",
        "--grace_seconds",
        type=float,
        default=10.0,
        help="to finish requests after SIGTERM",
    )
