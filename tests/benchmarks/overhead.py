"""Does what a server adds to the model keep its limits? `python -m tests.benchmarks.overhead REPORT.json`

Reads a report of `make compare PEERS=1`. The overhead is the CPU time of the server for one request, less that of the
model in process. Exits with 1 where a limit is missed or its figure was not measured, with 2 where the report has no
peers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.records import tables
from serving.compare import report
from serving.compare.report import IN_PROCESS, PEER, VARIANT, Report, ReportError

OURS = "onnxruntime"
PROTOCOLS = {
    "JSON": ("rest", "oip+http"),
    "binary": ("rest-binary", "oip-binary+http"),
    "gRPC": ("grpc", "oip+grpc"),
}
"""As our rows and the peers' call them."""
SHARES = (
    *(("JSON", "triton", 1.2), ("JSON", "mlserver", 1.0), ("JSON", "kserve", 1.0)),
    ("binary", "triton", 1.1),
    *(("gRPC", "triton", 1.7), ("gRPC", "mlserver", 1.0), ("gRPC", "kserve", 1.0)),
)
"""Our overhead by a protocol, at most as a share of a peer's."""
START_SECONDS, MEBIBYTES = 1.5, 140.0
"""Of our server: from its start to ready; and resident after the load, with what it shares with other processes."""


def overheads(found: Report) -> dict[tuple[str, str], float]:
    """Microseconds a request, by server and protocol."""
    names = {name: protocol for protocol, own in PROTOCOLS.items() for name in own}
    alone, cpu = 0.0, {}
    for row in found.rows:
        if not row.cpu_us or row.variant or row.kind == VARIANT:
            continue
        if row.kind == IN_PROCESS and row.target == OURS:
            alone = row.cpu_us.value
        elif row.protocol in names and (row.target == OURS or row.kind == PEER):
            # A peer's row is called by its address.
            cpu[row.server if row.kind == PEER else OURS, names[row.protocol]] = row.cpu_us.value
    return {key: value - alone for key, value in cpu.items()} if alone else {}


def figures(found: Report) -> list[tuple[str, float, float | None]]:
    """What, its limit, and what was read."""
    over = overheads(found)
    read: list[tuple[str, float, float | None]] = []
    for protocol, peer, limit in SHARES:
        ours, theirs = over.get((OURS, protocol)), over.get((peer, protocol))
        share = ours / theirs if ours is not None and theirs else None
        read.append((f"overhead by {protocol}, as a share of {peer}'s", limit, share))
    own = [row for row in found.working if row.target == OURS and not row.variant]
    starts = [row.start_seconds for row in own if row.start_seconds is not None]
    held = [row.memory_loaded / 2**20 for row in own if row.memory_loaded is not None]
    read.append((f"{OURS}: start, s", START_SECONDS, max(starts, default=None)))
    read.append((f"{OURS}: memory, MiB", MEBIBYTES, max(held, default=None)))
    return read


def main(arguments: list[str]) -> int:
    """Print the overheads, and each limit with its figure; returns the exit status."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        found = report.load(Path(arguments[0]))
    except ReportError as error:
        sys.exit(f"error: {error}")
    if not any(row.kind == PEER for row in found.rows):
        print("the report has no peers: `make compare PEERS=1` makes one that has")
        return 2
    over = [[name, protocol, f"{value:.0f}"] for (name, protocol), value in overheads(found).items()]
    print(tables.render(["server", "protocol", "overhead us"], over), "\n")
    rows, missed = [], False
    for what, limit, value in figures(found):
        kept = value is not None and value <= limit
        missed |= not kept
        state = "reached" if kept else "not measured" if value is None else "MISSED"
        rows.append([what, f"<= {limit:g}", "-" if value is None else f"{value:.2f}", state])
    print(tables.render(["figure", "limit", "read", ""], rows))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
