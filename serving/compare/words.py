"""Sentences from a report's figures: the fastest, cheapest, smallest and most exact rows.

Rows of uncertain order are not ranked; such pairs are named instead.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

from serving.compare import conditions
from serving.compare.report import CLEAR, ENDPOINT, NULL, Figure, Report, Row, are_equal

QUIET = 0.1
"""The share of CPU time of other processes above which figures are doubtful."""
NAMED = 6
"""The maximum of named rows; larger sets are counted."""
FRAMEWORKS = {"tensorflow": "TensorFlow", "pytorch": "PyTorch"}
Ranked = list[tuple[Figure, Row]]
"""The best first."""


class Question(NamedTuple):
    """The sentences about a figure: the best rows and the worst one, and rows of uncertain order."""

    best: str
    equal: str
    value: Callable[[float], str]


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


QUESTIONS = {
    "p50": Question(
        "One request at a time: {names} answer{s} in {span} (median), "
        "{ratio:.1f} times sooner than {worst} ({value}).",
        "answer equally soon",
        _ms,
    ),
    "goodput": Question(
        "{names} keep{s} up {span} requests a second with 99 % within {target_ms:g} ms, "
        "{ratio:.1f} times as many as {worst} ({value}).",
        "keep up equally many requests a second",
        "{:,.0f}".format,
    ),
    "cpu_us": Question(
        "{names} take{s} the least CPU: {span} a request; {worst} takes {ratio:.1f} times as much.",
        "take equally much CPU a request",
        "{:,.0f} us".format,
    ),
    "million_cost": Question(
        "At the highest rate that {names} keep{s} up, a million requests cost {span}, with {worst} {value}.",
        "cost equally much",
        "{:.2g}".format,
    ),
}


def conclusions(report: Report) -> list[str]:
    """Return sentences from figures of the report, the most important first."""
    found = [
        *(_best(report, name) for name in QUESTIONS),
        *(_equal(report, name) for name in ("p50", "goodput", "cpu_us")),
        _parts(report),
        *_precisions(report),
        _parity(report),
        _frameworks(report),
        _training(report),
        *(f"{row.name} {row.state}: {row.reason}" for row in report.rows if not row.works),
        *(
            f"{row.name}: {sum(row.failures.values())} requests failed, most by: {most}."
            for row in report.rows
            if row.works and (most := max(row.failures, key=lambda words: row.failures[words], default=""))
        ),
        *_doubts(report),
    ]
    return [sentence for sentence in found if sentence]


def million(row: Row, price_per_core_hour: float) -> float | None:
    """Return the cost of a million requests, by the CPU time at the highest sustained rate; None if unknown."""
    kept = [(point.offered, point.cpu_us) for point in row.sweep if not point.reason and point.cpu_us]
    return max(kept)[1] / 3600 * price_per_core_hour if kept else None


def _best(report: Report, name: str) -> str:
    """Compare the best row, and all of uncertain order to it, with the worst; "" if that is one of them."""
    rows, question = _ranked(report, name), QUESTIONS[name]
    best = [(figure, row) for figure, row in rows if are_equal(figure, rows[0][0])]
    if not rows or any(are_equal(figure, rows[-1][0]) for figure, _ in best):
        return ""
    values, worst = [figure.value for figure, _ in best], rows[-1][0].value
    return question.best.format(
        names=_listed([row.name for _, row in best]),
        s="s" if len(best) == 1 else "",
        span=_span(min(values), max(values), question.value),
        ratio=max(worst / max(values), min(values) / worst),
        worst=rows[-1][1].name,
        value=question.value(worst),
        target_ms=report.settings["target_ms"],
    )


def _equal(report: Report, name: str) -> str:
    """Name the pairs of targets of uncertain order, each by its best row."""
    value, found = QUESTIONS[name].value, []
    for (left, one), (right, two) in combinations(_ranked(report, name, ENDPOINT), 2):
        if are_equal(left, right):
            least = min(left.value, right.value)
            apart, spread = abs(left.value - right.value) / least, (left.spread + right.spread) / least
            names = f"{one.name} ({value(left.value)}) and {two.name} ({value(right.value)})"
            why = f"spread of ±{spread:.0%}" if apart <= spread else f"{CLEAR:.0%} by which two runs differ"
            found.append(f"{names} are {apart:.0%} apart, within the {why}")
    return f"These {QUESTIONS[name].equal} here: {'; '.join(found)}." if found else ""


def _parts(report: Report) -> str:
    rows = [row for row in report.working if row.parts]
    if not rows:
        return ""
    row = min(rows, key=lambda row: sum(row.parts.values()))
    total = sum(row.parts.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in row.parts.items())
    return f"Where the {_ms(total)} of {row.name} go: {shares}."


def _precisions(report: Report) -> list[str]:
    """Compare each less precise form with the deployed one by the same protocol."""
    found: dict[str, str] = {}
    deployed = {(row.target, row.protocol): row for row in report.working if not row.variant}
    for row in report.working:
        base = deployed.get((row.target, row.protocol))
        if base is None or row.precision == base.precision or row.way in found:
            continue
        if row.p50 and base.p50 and row.score is not None and base.score is not None and base.artifact_bytes:
            share = f"{row.p50.value / base.p50.value:.0%} of"
            found[row.way] = (
                f"{row.way} has {row.artifact_bytes / base.artifact_bytes:.0%} of the size, "
                f"{'about' if are_equal(row.p50, base.p50) else share} the median by {row.protocol}, and "
                f"{100 * (row.score - base.score):+.2f} points of {report.score}."
            )
    return list(found.values())


def _parity(report: Report) -> str:
    rows = [row for row in report.working if row.difference is not None and row.precision == "float32"]
    if not rows:
        return ""
    worst = max(rows, key=lambda row: row.difference or 0.0)
    scores = [row.score for row in rows if row.score is not None]
    span = _span(min(scores), max(scores), "{:.4f}".format) if scores else ""
    same = f"; {report.score} through the endpoints is {span}" if scores else ""
    answer = "1 endpoint answers" if len(rows) == 1 else f"{len(rows)} endpoints answer"
    return f"{answer} as the framework does, within {worst.difference:.1g} ({worst.name}){same}."


def _frameworks(report: Report) -> str:
    best: dict[str, tuple[Figure, Row]] = {}
    for figure, row in _ranked(report, "cpu_us"):
        best.setdefault(row.framework, (figure, row))
    found = [pair for name, pair in best.items() if name in FRAMEWORKS]
    if len(found) < 2:
        return ""
    (low, winner), (high, loser) = found
    if are_equal(low, high):
        return "The cheapest way from TensorFlow and the cheapest from PyTorch cost about the same CPU."
    return (
        f"The cheapest way from {FRAMEWORKS[winner.framework]} is {winner.name}, from "
        f"{FRAMEWORKS[loser.framework]} {loser.name}, which takes {high.value / low.value:.1f} times the CPU."
    )


def _training(report: Report) -> str:
    """Compare the trainings of both frameworks, if both have a record."""
    own = [one for one in report.frameworks if one.epochs and one.name in FRAMEWORKS]
    if len(own) < 2:
        return ""
    seconds = " and ".join(f"{one.seconds / len(one.epochs):.1f} s with {one.name}" for one in own)
    scores = " and ".join("unknown" if one.score is None else f"{one.score:.4f}" for one in own)
    lines = " and ".join(str(sum(one.lines.values())) for one in own)
    return f"An epoch took {seconds}; {report.score} is {scores}; their ways are {lines} lines of code."


def _doubts(report: Report) -> list[str]:
    rows, found = report.working, []
    for when, busy in (("before the start", report.busy_before), ("after the end", report.busy_after)):
        if busy > QUIET:
            found.append(
                f"The machine was busy {when} ({busy:.0%} of its processors' time was others'): "
                "compare ratios, not milliseconds."
            )
    if len({row.framework for row in rows if row.kind == ENDPOINT} - {"-"}) > 1:
        found.append(
            "Rows have the weights of two frameworks, so their scores differ by training, too; "
            "`tandem compare --source pytorch` puts the same behind all."
        )
    found += conditions.differences(report)
    servers = {row.server for row in report.rows if row.kind == NULL and row.works and row.p50}
    doubtful = {
        f"CPU a request moved by more than ±{CLEAR:.0%} between rounds (~)": [
            row for row in rows if is_unsteady(row.cpu_us)
        ],
        "Figures that are not sure (*)": [
            row for row in rows if any(figure and figure.reason for figure in (row.p99, row.goodput))
        ],
        "The generator takes more than a fifth of the server's CPU a request, so the highest rate is a lower bound": [
            row for row in rows if row.generator_us and row.cpu_us and row.generator_us > row.cpu_us.value / 5
        ],
        "Parts that were measured beside it took longer than the whole": [
            row for row in rows if row.server in servers and row.p50 and not row.parts
        ],
    }
    for doubt, own in doubtful.items():
        names = ", ".join(row.name for row in own)
        if own:
            found.append(f"{doubt}: {names if len(own) <= NAMED else f'{len(own)} of {len(rows)} rows'}.")
    if report.partial:
        found.append("The comparison was interrupted: figures are missing.")
    return found


def is_unsteady(figure: Figure | None) -> bool:
    """Return True if its rounds differ by more than two runs should."""
    return figure is not None and figure.spread > CLEAR * figure.value


def _ranked(report: Report, name: str, *kinds: str) -> Ranked:
    """Return each way's best row with the figure, of these kinds; all rows if there is one way."""
    asked = [row for row in report.working if not kinds or row.kind in kinds]
    found = [(value, row) for row in asked if (value := getattr(row, name))]
    rows = [(value if isinstance(value, Figure) else Figure(value), row) for value, row in found]
    rows = [(figure, row) for figure, row in rows if figure.value]
    rows.sort(key=lambda pair: pair[0].value, reverse=name == "goodput")
    best: dict[str, tuple[Figure, Row]] = {}
    for figure, row in rows:
        best.setdefault(row.way, (figure, row))
    return list(best.values()) if len(best) > 1 else rows


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _span(low: float, high: float, form: Callable[[float], str]) -> str:
    return form(low) if form(low) == form(high) else f"{form(low)} to {form(high)}"
