"""The report as a page, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.compare import words
from serving.compare.report import Figure, Report, Row

FILE = "index.html"

COLUMNS: dict[str, Callable[[Row], str]] = {
    "target": lambda row: row.target,
    "protocol": lambda row: row.protocol,
    "framework": lambda row: row.framework,
    "runs": lambda row: row.runs,
    "score": lambda row: _number(row.score, ".4f"),
    "largest difference": lambda row: _number(row.difference, ".1e"),
    "p50 ms": lambda row: figure(row.p50, ".2f"),
    "p99 ms": lambda row: figure(row.p99, ".2f"),
    "req/s": lambda row: figure(row.goodput, ",.0f"),
    "rows/s": lambda row: _number(max(row.batches.values(), default=None), ",.0f"),
    "CPU us": lambda row: figure(row.cpu_us, ",.0f"),
    "MiB": lambda row: _number(None if row.memory_loaded is None else row.memory_loaded / 2**20, ",.0f"),
    "artifact MiB": lambda row: _number(row.artifact_bytes / 2**20, ".2f") if row.artifact_bytes else "-",
}
"""One table of all rows: each column's text."""


def html(report: Report) -> str:
    """One file that needs nothing from anywhere."""
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
        columns=list(COLUMNS),
        table=[(row, cells(row)) for row in report.rows],
        plots=plots.all_of(report),
    )


def markdown(report: Report) -> str:
    """A summary for a pull request."""
    lines = [f"### {report.model}, version {report.version}: every way to production, measured", ""]
    lines += [f"- {sentence}" for sentence in words.conclusions(report)]
    names = [name for name in COLUMNS if name not in ("framework", "artifact MiB")]
    lines += ["", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in report.rows:
        own = dict(zip(COLUMNS, cells(row), strict=True))
        lines.append(f"| {' | '.join(own[name] for name in names)} |")
    machine = report.machine
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores; platform {report.platform}; {report.started}.",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(report: Report) -> str:
    """The table with bare numbers, one line a row."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    names = ("p50", "p90", "p99", "goodput", "cpu_us")
    writer.writerow(
        ["target", "protocol", "framework", "state", "score", "difference", *names, "artifact_bytes"]
    )
    for row in report.rows:
        found: list[Figure | None] = [getattr(row, name) for name in names]
        values = ["" if one is None else one.value for one in found]
        writer.writerow(
            [
                row.target,
                row.protocol,
                row.framework,
                row.state,
                row.score,
                row.difference,
                *values,
                row.artifact_bytes,
            ]
        )
    return stream.getvalue()


def cells(row: Row) -> Sequence[str]:
    """The row's texts, one for each of `COLUMNS`."""
    return [text(row) for text in COLUMNS.values()]


def figure(found: Figure | None, form: str) -> str:
    """A figure with half of its range; * where it is not valid."""
    if found is None:
        return "-"
    spread = f" ±{found.spread:{form}}" if found.spread else ""
    return f"{found.value:{form}}{spread}{'' if found.valid else ' *'}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
