"""A profile as lines for the terminal, and as a page without external files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from pipelines.cli.profiling.record import DEAREST, PARTS, Profiled
from pipelines.records import tables
from serving.compare.page import template
from serving.repository import write_atomically

FILE = "index.html"
COLUMNS = 80


def lines(made: Sequence[Profiled], folder: Path) -> list[str]:
    """Return the table of the parts, the dearest ops of each, a summary, and the path of the page."""
    parts = [
        [own.name, *(milliseconds(own.parts.get(part)) for part in PARTS), milliseconds(own.seconds)]
        for own in made
    ]
    found = ["Milliseconds a step:", tables.render(["", *PARTS, "all"], parts)]
    for own in made:
        rows = [
            [f"{100 * own.share(op):.1f} %", milliseconds(op.seconds), f"{op.calls:g}", op.name[:50]]
            for op in own.ops[:DEAREST]
        ]
        found += ["", f"{own.name} ({own.runs_on}):", tables.render(["share", "ms", "calls", "op"], rows)]
        found += textwrap.wrap(own.note, COLUMNS)
    sentences = [textwrap.fill(own.sentence, COLUMNS) for own in made]
    return [*found, "", *sentences, "", f"page: {folder / FILE}"]


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds; `-` for None."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def write(made: Sequence[Profiled], heading: str, folder: Path) -> None:
    """Write the page with the frameworks side by side."""
    text = template(Path(__file__).parent, milliseconds).render(
        made=made,
        title=heading,
        parts=PARTS,
        dearest=DEAREST,
        longest=max(own.seconds for own in made),
    )
    write_atomically(folder / FILE, text)
