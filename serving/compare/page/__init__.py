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
    "target": lambda row: f"{row.target} {row.variant}".strip(),
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
    "start s": lambda row: _number(row.start_seconds, ".1f"),
    "MiB": lambda row: _mebibytes(row.memory_loaded, ",.0f"),
    "artifact MiB": lambda row: _mebibytes(row.artifact_bytes or None, ".2f"),
}
"""One table of all rows: each column's text."""
SHORT = (
    "target",
    "protocol",
    "runs",
    "artifact MiB",
    "score",
    "largest difference",
    "p50 ms",
    "p99 ms",
    "req/s",
    "start s",
    "MiB",
)
"""What the table with one row a target tells of it."""
CONDITIONS: dict[str, Callable[[Row], str]] = {
    "row": lambda row: row.name,
    "state": lambda row: f"{row.state}: {row.reason}" if row.reason else row.state,
    "kind": lambda row: row.kind,
    "precision": lambda row: row.precision,
    **{
        name: (lambda row, name=name: str(row.conditions.get(name, "-")))  # type: ignore[misc]
        for name in ("threads", "processes", "batched", "instruction set")
    },
    "idle MiB": lambda row: _mebibytes(row.memory_idle, ",.0f"),
    "image MiB": lambda row: _mebibytes(row.image_bytes, ",.0f"),
    "a million costs": lambda row: _number(row.million_cost, ".2g"),
}
"""How each row runs."""
FRAMEWORKS: dict[str, Callable[[Framework], str]] = {
    "framework": lambda own: f"{own.name} ({own.library})",
    "epochs": lambda own: str(len(own.epochs)),
    "seconds an epoch": lambda own: _number(own.seconds / len(own.epochs) if own.epochs else None, ".1f"),
    "peak MiB": lambda own: _mebibytes(own.peak_bytes or None, ",.0f"),
    "score": lambda own: _number(own.score, ".4f"),
    "export seconds": lambda own: _listed(
        {name: f"{value:.1f}" for name, value in own.export_seconds.items()}
    ),
    "lines of code": lambda own: _listed({name: str(value) for name, value in own.lines.items()}),
}
"""Each framework's way."""


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
        conditions=[[text(row) for text in CONDITIONS.values()] for row in report.rows],
        condition_columns=list(CONDITIONS),
        frameworks=[[text(own) for text in FRAMEWORKS.values()] for own in report.frameworks],
        framework_columns=list(FRAMEWORKS),
        plots=plots.all_of(report),
    )


def markdown(report: Report) -> str:
    """A summary for a pull request: one row a target, by its protocol that answers soonest, then all rows."""
    lines = [f"### {report.model}, version {report.version}: every way to production, measured", ""]
    lines += [f"- {sentence}" for sentence in words.conclusions(report)]
    known = projects()
    first: dict[str, Callable[[Row], str]] = {
        **{name: COLUMNS[name] for name in SHORT},
        "project": lambda row: known.get(row.target, {}).get("state", "-"),
    }
    soonest: dict[str, Row] = {}
    for row in report.rows:
        if row.kind == ENDPOINT and row.works and row.p50 is not None:
            before = soonest.setdefault(row.target, row)
            if before.p50 is not None and row.p50.value < before.p50.value:
                soonest[row.target] = row
    lines += _table(first, list(soonest.values()))
    every = {name: text for name, text in COLUMNS.items() if name not in ("framework", "artifact MiB")}
    lines += _table(every, report.rows)
    machine = report.machine
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores; platform {report.platform}; {report.started}.",
    ]
    return "\n".join(lines) + "\n"


def _table(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> list[str]:
    head = ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [f"| {' | '.join(text(row) for text in columns.values())} |" for row in rows]


def comma_separated(report: Report) -> str:
    """The table with bare numbers, one line a row."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    figures = ("p50", "p90", "p99", "goodput", "cpu_us")
    plain = (
        "target",
        "variant",
        "protocol",
        "kind",
        "framework",
        "precision",
        "state",
        "score",
        "difference",
    )
    last = ("start_seconds", "memory_idle", "memory_loaded", "artifact_bytes", "image_bytes", "million_cost")
    writer.writerow([*plain, *figures, *last])
    for row in report.rows:
        found: list[Figure | None] = [getattr(row, name) for name in figures]
        values = ["" if one is None else one.value for one in found]
        writer.writerow(
            [*(getattr(row, name) for name in plain), *values, *(getattr(row, name) for name in last)]
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


def _mebibytes(size: int | None, form: str) -> str:
    return _number(None if size is None else size / 2**20, form)


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "-"
