"""The report as a page, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serving.compare import report, words
from serving.compare.decision import projects
from serving.compare.report import ENDPOINT, Figure, Report, Row

if TYPE_CHECKING:
    import jinja2

FILE, SUMMARY = "index.html", "summary.md"
FOLDER = Path(__file__).parent

COLUMNS: dict[str, Callable[[Row], str]] = {
    "target": lambda row: row.way,
    "protocol": lambda row: row.protocol,
    "p50 ms": lambda row: _figure(row.p50, ".2f"),
    "p99 ms": lambda row: _figure(row.p99, ".2f"),
    "req/s": lambda row: _figure(row.goodput, ",.0f"),
    "rows/s": lambda row: number(max(row.batches.values(), default=None), ",.0f"),
    "CPU us": lambda row: _figure(row.cpu_us, ",.0f") + (" ~" if words.is_unsteady(row.cpu_us) else ""),
    "score": lambda row: number(row.score, ".4f"),
    "largest difference": lambda row: number(row.difference, ".1e"),
    "start s": lambda row: number(row.start_seconds, ".1f"),
    "MiB": lambda row: mebibytes(row.memory_loaded, ",.0f"),
    "artifact MiB": lambda row: mebibytes(row.artifact_bytes or None, ".2f"),
    "framework": lambda row: row.framework,
    "runs": lambda row: row.runs,
}
"""The columns of the table of all rows."""
SHORT = (
    *("target", "protocol", "runs", "artifact MiB", "score", "largest difference"),
    *("p50 ms", "p99 ms", "req/s", "start s", "MiB"),
)
"""The columns of the table with one row for each target."""


def write(made: Report, folder: Path) -> None:
    """Write the report as data, page, Markdown and CSV."""
    report.save(made, folder)
    (folder / FILE).write_text(html(made))
    (folder / SUMMARY).write_text(markdown(made))
    (folder / "rows.csv").write_text(comma_separated(made))


def html(made: Report) -> str:
    """Return the page: one file without references to others."""
    from serving.compare.page import plots

    told = {"conclusions": words.conclusions(made), "columns": COLUMNS, "plots": plots}
    page = template(FOLDER, number, mebibytes, listed, file="report.html")
    return page.render(report=made, **told)


def template(folder: Path, *filters: Callable[..., str], file: str = "page.html") -> jinja2.Template:
    """Return a template of a folder, which may extend `base.html`; the functions are filters in it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=file.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {filter.__name__: filter for filter in filters}
    return environment.get_template(file)


def markdown(made: Report) -> str:
    """Return a summary for a pull request: the fastest protocol of each target, then all rows."""
    known = projects()
    soonest: dict[str, Row] = {}
    for row in sorted(made.working, key=lambda row: row.p50.value if row.p50 else float("inf")):
        if row.kind == ENDPOINT and row.p50:
            soonest.setdefault(row.target, row)
    first = {name: COLUMNS[name] for name in SHORT}
    first["project"] = lambda row: known.get(row.target, {}).get("state", "-")
    every = {name: text for name, text in COLUMNS.items() if name not in ("framework", "artifact MiB")}
    targets = [soonest[name] for name in dict.fromkeys(row.target for row in made.rows) if name in soonest]
    tables = [(first, targets), (every, made.rows)]
    told = {"conclusions": words.conclusions(made), "tables": tables}
    return template(FOLDER, file=SUMMARY).render(report=made, **told)


def comma_separated(made: Report) -> str:
    """Return the rows as CSV with plain numbers: all fields of a row but lists and tables."""
    stream = io.StringIO()
    names = [name for name, kind in Row.__annotations__.items() if not kind.startswith(("list", "dict"))]
    writer = csv.writer(stream)
    writer.writerow(names)
    for row in made.rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([value.value if isinstance(value, Figure) else value for value in values])
    return stream.getvalue()


def _figure(found: Figure | None, form: str) -> str:
    """Return a figure with half of its range, and * if it is not valid."""
    if found is None:
        return "-"
    spread = f" ±{found.spread:{form}}" if found.spread else ""
    return f"{found.value:{form}}{spread}{' *' if found.reason else ''}"


def number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def mebibytes(size: int | None, form: str) -> str:
    return number(None if size is None else size / 2**20, form)


def listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items()) or "-"
