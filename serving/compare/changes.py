"""Differences of two reports beyond both spreads."""

from __future__ import annotations

from dataclasses import dataclass

from serving.compare.report import Report, Row

LEAST = 0.05
"""Smaller relative differences are ignored."""
FIGURES = {"p50": "lower", "p99": "lower", "cpu_us": "lower", "goodput": "higher"}
"""The compared figures, and the better side of each."""


@dataclass(frozen=True)
class Change:
    """A figure of a row in two reports."""

    row: str
    figure: str
    before: float
    after: float
    worse: bool

    def __str__(self) -> str:
        """Return a line for the terminal."""
        word = "REGRESSION" if self.worse else "better"
        ratio = f", {self.after / self.before:.2f} times" if self.before else ""
        return f"{word}: {self.row}: {self.figure} {self.before:.4g} -> {self.after:.4g}{ratio}"


def changes(old: Report, new: Report) -> list[Change]:
    """Return differences beyond both spreads, and rows that stopped or began to work, in the new report's order.

    Rows of targets and variants that the new report was not asked for are left out.
    """
    before, after = ({row.name: row for row in report.rows} for report in (old, new))
    found = [change for name, row in after.items() if name in before for change in _of_row(before[name], row)]
    asked = {row.way for row in new.rows}
    lost = [name for name, row in before.items() if row.works and name not in after and row.way in asked]
    return found + [Change(name, "state", 1, 0, True) for name in lost]


def _of_row(old: Row, new: Row) -> list[Change]:
    if old.works != new.works:
        return [Change(new.name, "state", float(old.works), float(new.works), old.works)]
    found = []
    for name, better in FIGURES.items():
        before, after = getattr(old, name), getattr(new, name)
        # Invalid figures are not compared.
        if before and after and not before.reason and not after.reason and before.is_apart(after, LEAST):
            worse = (after.value > before.value) == (better == "lower")
            found.append(Change(new.name, name, before.value, after.value, worse))
    if old.score is not None and new.score is not None and abs(new.score - old.score) > 1e-9:
        found.append(Change(new.name, "score", old.score, new.score, new.score < old.score))
    return found
