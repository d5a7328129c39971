"""The parts of a request's time: generator, client and wire, server, model, and the rest.

By subtraction of medians: no endpoint (the generator), a server without a model (its CPU time is the server's, the rest
the client's and the wire's), the runtime in process (the model). The rest comes from their combination: the way to the
run's thread and back, colder caches.
"""

from __future__ import annotations

from serving.compare.local import NOTHING
from serving.compare.report import IN_PROCESS, NULL, Report, Row

CONTRADICTION = 1.1
"""Parts with a larger sum, relative to the row's median, are dropped: the machine was not quiet."""
PARTS = ("generator", "client and wire", "server", "model", "both together")


def divide(report: Report) -> None:
    """Fill in the parts of all rows with a measured server without a model and a measured runtime in process."""
    measured = [row for row in report.rows if row.works and row.p50]
    nothing = next((row for row in measured if row.protocol == NOTHING), None)
    empty = {(row.server, row.protocol): row for row in measured if row.kind == NULL}
    alone = {(row.target, row.variant): row for row in measured if row.kind == IN_PROCESS}
    for row in report.working:
        null, runtime = empty.get((row.server, row.protocol)), alone.get((row.target, row.variant))
        if row.p50 and nothing and null and runtime:
            row.parts = _parts(row, nothing, null, runtime)


def _parts(row: Row, nothing: Row, null: Row, runtime: Row) -> dict[str, float]:
    total, generator, empty, model = (
        one.p50.value if one.p50 else 0.0 for one in (row, nothing, null, runtime)
    )
    if max(empty, generator) + max(model - generator, 0.0) > CONTRADICTION * total:
        return {}
    empty = min(max(empty, generator), total)
    server = min(null.cpu_us.value / 1000 if null.cpu_us else 0.0, empty - generator)
    model = min(max(model - generator, 0.0), total - empty)
    values = (generator, empty - generator - server, server, model, total - empty - model)
    return dict(zip(PARTS, values, strict=True))
