"""What differs between two reports by more than both spreads."""

from __future__ import annotations

from dataclasses import dataclass

from serving.compare.report import Figure, Report, Row

LEAST = 0.05
"""Differences below this share are no differences, however small the spreads."""
FIGURES = {"p50": "lower", "p99": "lower", "cpu_us": "lower", "goodput": "higher"}
"""Each figure, and where it is better."""


@dataclass(frozen=True)
class Change:
    """A figure of a row in two reports."""

    row: str
    figure: str
    before: float
    after: float
    worse: bool

    def __str__(self) -> str:
        """As a line for the terminal."""
        word = "REGRESSION" if self.worse else "better"
        ratio = f", {self.after / self.before:.2f} times" if self.before else ""
        return f"{word}: {self.row}: {self.figure} {self.before:.4g} -> {self.after:.4g}{ratio}"


def changes(old: Report, new: Report) -> list[Change]:
    """Differences beyond both spreads, and rows that stopped or began to work, in the order of the new report."""
    before = {row.name: row for row in old.rows}
    found = []
    for row in new.rows:
        if (past := before.get(row.name)) is not None:
            found += _of_row(past, row)
    lost = [name for name, row in before.items() if row.works and name not in {row.name for row in new.rows}]
    return found + [Change(name, "state", 1, 0, True) for name in lost]


def _of_row(old: Row, new: Row) -> list[Change]:
    if old.works != new.works:
        return [Change(new.name, "state", float(old.works), float(new.works), old.works)]
    found = []
    for name, better in FIGURES.items():
        before, after = getattr(old, name), getattr(new, name)
        if before is not None and after is not None and _apart(before, after):
            found.append(
                Change(
                    new.name,
                    name,
                    before.value,
                    after.value,
                    (after.value > before.value) == (better == "lower"),
                )
            )
    if old.score is not None and new.score is not None and abs(new.score - old.score) > 1e-9:
        found.append(Change(new.name, "score", old.score, new.score, new.score < old.score))
    return found


def _apart(before: Figure, after: Figure) -> bool:
    # A reading that is not valid says nothing.
    if not (before.valid and after.valid):
        return False
    distance = abs(after.value - before.value)
    return distance > before.spread + after.spread and distance > LEAST * abs(before.value)
