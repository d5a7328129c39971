"""Plain tables for the terminal."""

from __future__ import annotations


def render(header: list[str], rows: list[list[str]]) -> str:
    """Align columns on the left, two spaces apart, with the header underlined."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def duration(seconds: float | None) -> str:
    """Return seconds as `7 s`, `12 min`, `3 h` or `2 d`; `-` for None."""
    if seconds is None:
        return "-"
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int | None) -> str:
    """Return bytes as mebibytes; `-` for None."""
    return "-" if count is None else f"{count / 2**20:.0f} MiB"
