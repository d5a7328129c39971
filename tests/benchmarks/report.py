"""The table, the promised figures beside what was read, and the file of all readings."""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from pipelines.records import tables

from .contenders import LITERT, OURS
from .readings import Endpoint, Results

HEADER = ["server", "protocol", "CPU us", "over", "x ours", "p50 ms", "p99 ms", "req/s", "start s", "PSS MB"]
NAMED = (
    "Python",
    "onnxruntime",
    "ai-edge-litert",
    "tensorflow-cpu",
    "tensorflow",
    "uvicorn",
    "grpcio",
    "numpy",
)
PEER_PACKAGES = {"triton": "nvidia-pytriton"}
Read = Callable[[Results], float | None]


def render(results: Results) -> str:
    """The table, at most 100 columns wide."""
    rows = [
        [f"({runtime} in-process)", "", _spread([one * 1e6 for one in seconds])] + [""] * 7
        for runtime, seconds in results.alone.items()
    ]
    for name, measured in results.servers.items():
        first = True
        for protocol, endpoint in measured.endpoints.items():
            whole = [f"{measured.start:.1f}", f"{measured.pss / 1e6:.0f}"] if first else ["", ""]
            rows.append([name if first else "", protocol, *_figures(results, protocol, endpoint), *whole])
            first = False
    return tables.render(HEADER, rows)


def _figures(results: Results, protocol: str, endpoint: Endpoint) -> list[str]:
    over = endpoint.overhead(results.alone)
    ours = results.overhead(OURS, protocol, "JSON")
    return [
        _spread(endpoint.cpu),
        f"{over:.0f}",
        "-" if ours is None or ours <= 0 else f"{over / ours:.1f}",
        f"{endpoint.percentile(50):.2f}",
        f"{endpoint.percentile(99):.2f}",
        f"{endpoint.throughput:.0f}",
    ]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ±{(max(values) - min(values)) / 2:.0f}"


def notes(results: Results, options: argparse.Namespace) -> str:
    """How the figures came about: machine, versions, load, failures, what was left out."""
    sent = [(e.calls, e.faults) for m in results.servers.values() for e in m.endpoints.values()]
    lines = [
        f"{options.rounds} rounds, in each {options.calls} calls at concurrency 1 and {options.seconds:g} s at"
        f" {options.concurrency} (req/s) by each row; {results.seconds:.0f} s in all",
        f"{psutil.cpu_count()} cores, {platform.machine()}, Linux {platform.release()};"
        f" load average {min(results.load):.1f} to {max(results.load):.1f}",
        f"1,000 additions in Python: {_spread([one * 1e6 for one in results.additions])} us of CPU",
        f"requests: {sum(calls for calls, _ in sent)}, failed or answered wrongly:"
        f" {sum(len(faults) for _, faults in sent)}",
    ]
    for name, measured in results.servers.items():
        package = PEER_PACKAGES.get(name, name)
        wanted = NAMED if not measured.contender.peer else (package,)
        if measured.contender.peer or name == next(iter(results.servers)):
            named = [f"{one} {measured.versions[one]}" for one in wanted if one in measured.versions]
            lines.append(", ".join(named))
        for protocol, endpoint in measured.endpoints.items():
            if endpoint.faults:
                lines.append(
                    f"{name} by {protocol}: {len(endpoint.faults)} faults, such as {endpoint.faults[0]}"
                )
    lines += [f"left out: {name}: {reason}" for name, reason in results.left_out.items()]
    return "\n".join(lines)


def promises() -> Iterator[tuple[str, str, float, Read, Read | None]]:
    """Each figure: what, how it is compared, factor or limit, how it is read, and what the factor is of."""
    shares = (("JSON", "triton", 1.4), ("JSON", "mlserver", 1.0), ("binary", "triton", 1.1))
    shares += (("gRPC", "triton", 1.7), ("gRPC", "kserve", 1.0), ("gRPC", "mlserver", 1.0))
    for protocol, peer, limit in shares:
        what = f"overhead by {protocol}, as a share of {peer}'s"
        yield what, "<=", limit, _over(OURS, protocol), _over(peer, protocol)
    yield "req/s by JSON, times triton's", ">=", 0.5, _rate(OURS, "JSON"), _rate("triton", "JSON")
    for server, megabytes in ((OURS, 110), (LITERT, 90)):
        yield f"{server}: start to first answer, s", "<=", 1.5, _start(server), None
        yield f"{server}: memory, MB PSS", "<=", megabytes, _memory(server), None


def verdicts(results: Results) -> str:
    """Each promised figure with its limit, its reading, and whether it is reached."""
    rows = []
    for what, compared, limit, read, of in promises():
        value, whole = read(results), of(results) if of else 1.0
        if value is None or whole is None:
            rows.append([what, f"{compared} {limit:g}", "-", "not measured"])
            continue
        value /= whole
        reached = value <= limit if compared == "<=" else value >= limit
        reading = f"{value:.0f}" if abs(value) >= 20 else f"{value:.2f}"
        rows.append([what, f"{compared} {limit:g}", reading, "reached" if reached else "MISSED"])
    return tables.render(["figure", "limit", "read", ""], rows)


def _over(server: str, protocol: str) -> Read:
    return lambda results: results.overhead(server, protocol)


def _rate(server: str, protocol: str) -> Read:
    return lambda results: results.throughput(server, protocol)


def _start(server: str) -> Read:
    return lambda results: results.servers[server].start if server in results.servers else None


def _memory(server: str) -> Read:
    return lambda results: results.servers[server].pss / 1e6 if server in results.servers else None


def document(results: Results) -> dict[str, Any]:
    """All readings, for a file of JSON; times in seconds, memory in bytes."""
    servers = {}
    for name, measured in results.servers.items():
        servers[name] = {
            "versions": measured.versions,
            "starts": measured.starts,
            "pss": measured.pss,
            "protocols": {
                protocol: {
                    "overhead_us": endpoint.overhead(results.alone),
                    "cpu_us": endpoint.cpu,
                    "p50_ms": endpoint.percentile(50),
                    "p99_ms": endpoint.percentile(99),
                    "requests_per_second": [len(turn.latencies) / turn.seconds for turn in endpoint.many],
                    "cpu_us_under_load": [turn.cpu_seconds / turn.calls * 1e6 for turn in endpoint.many],
                    "requests": endpoint.calls,
                    "faults": endpoint.faults[:20],
                }
                for protocol, endpoint in measured.endpoints.items()
            },
        }
    return {
        "machine": {"cores": psutil.cpu_count(), "release": platform.release(), "load": results.load},
        "alone": results.alone,
        "additions": results.additions,
        "concurrency": results.concurrency,
        "left_out": results.left_out,
        "servers": servers,
    }
