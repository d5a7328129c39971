"""The report as a page, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving.compare import words
from serving.compare.decision import projects
from serving.compare.report import ENDPOINT, Figure, Framework, Report, Row

FILE = "index.html"

COLUMNS: dict[str, Callable[[Row], str]] = {
    "target": lambda row: row.way,
    "protocol": lambda row: row.protocol,
    "framework": lambda row: row.framework,
    "runs": lambda row: row.runs,
    "score": lambda row: _number(row.score, ".4f"),
    "largest difference": lambda row: _number(row.difference, ".1e"),
    "p50 ms": lambda row: _figure(row.p50, ".2f"),
    "p99 ms": lambda row: _figure(row.p99, ".2f"),
    "req/s": lambda row: _figure(row.goodput, ",.0f"),
    "rows/s": lambda row: _number(max(row.batches.values(), default=None), ",.0f"),
    "CPU us": lambda row: _figure(row.cpu_us, ",.0f") + (" ~" if words.is_unsteady(row.cpu_us) else ""),
    "start s": lambda row: _number(row.start_seconds, ".1f"),
    "MiB": lambda row: _mebibytes(row.memory_loaded, ",.0f"),
    "artifact MiB": lambda row: _mebibytes(row.artifact_bytes or None, ".2f"),
}
"""The columns of the table of all rows."""
FIRST = ("target", "protocol", "runs", "artifact MiB", "score", "largest difference")
SHORT = (*FIRST, "p50 ms", "p99 ms", "req/s", "start s", "MiB")
"""The columns of the table with one row for each target."""
CONDITIONS: dict[str, Callable[[Row], str]] = {
    "row": lambda row: row.name,
    "state": lambda row: f"{row.state}: {row.reason}" if row.reason else row.state,
    "kind": lambda row: row.kind,
    "precision": lambda row: row.precision,
    "threads": lambda row: str(row.conditions.get("threads", "-")),
    "processes": lambda row: str(row.conditions.get("processes", "-")),
    "batched": lambda row: str(row.conditions.get("batched", "-")),
    "instruction set": lambda row: str(row.conditions.get("instruction set", "-")),
    "idle MiB": lambda row: _mebibytes(row.memory_idle, ",.0f"),
    "image MiB": lambda row: _mebibytes(row.image_bytes, ",.0f"),
    "a million costs": lambda row: _number(row.million_cost, ".2g"),
}
"""The columns of the table of conditions."""
FRAMEWORKS: dict[str, Callable[[Framework], str]] = {
    "framework": lambda own: f"{own.name} ({own.library})",
    "epochs": lambda own: str(len(own.epochs)),
    "seconds an epoch": lambda own: _number(own.seconds / len(own.epochs) if own.epochs else None, ".1f"),
    "peak MiB": lambda own: _mebibytes(own.peak_bytes or None, ",.0f"),
    "score": lambda own: _number(own.score, ".4f"),
    "export seconds": lambda own: _listed(own.export_seconds, ".1f"),
    "lines of code": lambda own: _listed(own.lines, ""),
}
"""The columns of the table of frameworks."""
PLAIN = ("target", "variant", "protocol", "kind", "framework", "precision", "state", "score", "difference")
FIGURES = ("p50", "p90", "p99", "goodput", "cpu_us")
LAST = ("start_seconds", "memory_idle", "memory_loaded", "artifact_bytes", "image_bytes", "million_cost")
"""The columns of the CSV."""


def html(report: Report) -> str:
    """Return the page: one file without references to others."""
    import jinja2

    from serving.compare.page import plots

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report,
        conclusions=words.conclusions(report),
        columns=COLUMNS,
        conditions=CONDITIONS,
        frameworks=FRAMEWORKS,
        plots=plots.all_of(report),
    )


def markdown(report: Report) -> str:
    """Return a summary for a pull request: the fastest protocol of each target, then all rows."""
    known = projects()
    soonest: dict[str, Row] = {}
    for row in sorted(report.working, key=lambda row: row.p50.value if row.p50 else float("inf")):
        if row.kind == ENDPOINT and row.p50:
            soonest.setdefault(row.target, row)
    targets = {row.target: soonest[row.target] for row in report.rows if row.target in soonest}
    first = {name: COLUMNS[name] for name in SHORT}
    first["project"] = lambda row: known.get(row.target, {}).get("state", "-")
    every = {name: text for name, text in COLUMNS.items() if name not in ("framework", "artifact MiB")}
    machine = report.machine
    lines = [
        f"### {report.model}, version {report.version}: every way to production, measured",
        "",
        *(f"- {sentence}" for sentence in words.conclusions(report)),
        *_table(first, list(targets.values())),
        *_table(every, report.rows),
        "",
        f"{machine['processor']}, {machine['cores']} cores; platform {report.platform}; {report.started}.",
    ]
    return "\n".join(lines) + "\n"


def _table(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> list[str]:
    head = ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [f"| {' | '.join(text(row) for text in columns.values())} |" for row in rows]


def comma_separated(report: Report) -> str:
    """Return the rows as CSV with plain numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow([*PLAIN, *FIGURES, *LAST])
    for row in report.rows:
        values = [getattr(row, name) for name in (*PLAIN, *FIGURES, *LAST)]
        writer.writerow([value.value if isinstance(value, Figure) else value for value in values])
    return stream.getvalue()


def _figure(found: Figure | None, form: str) -> str:
    """Return a figure with half of its range, and * if it is not valid."""
    if found is None:
        return "-"
    spread = f" ±{found.spread:{form}}" if found.spread else ""
    return f"{found.value:{form}}{spread}{' *' if found.reason else ''}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _mebibytes(size: int | None, form: str) -> str:
    return _number(None if size is None else size / 2**20, form)


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items()) or "-"
