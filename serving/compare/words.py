"""The answer in words, computed from a report's figures: which way is fastest, cheapest, smallest, most exact."""

from __future__ import annotations

from collections.abc import Callable

from serving.compare import conditions
from serving.compare.report import ENDPOINT, NULL, Report, Row

CLEAR = 1.1
"""Below this ratio, two figures count as equal."""
QUIET = 0.1
"""The share of the processors' time that others may take before figures are doubtful."""


def conclusions(report: Report) -> list[str]:
    """Sentences, the most important first. Only what figures of this report say, with these figures."""
    found = [
        _fastest(report),
        _goodput(report),
        _cheapest(report),
        _money(report),
        _parts(report),
        _smallest(report),
        *_precisions(report),
        _parity(report),
        _frameworks(report),
        _training(report),
        *_broken(report),
        *_doubts(report),
    ]
    return [sentence for sentence in found if sentence]


def _fastest(report: Report) -> str:
    rows = _ranked(report, lambda row: row.p50.value if row.p50 else None)
    if len(rows) < 2:
        return ""
    (low, best), (high, worst) = rows[0], rows[-1]
    if high < CLEAR * low:
        return f"One request at a time takes about {_ms(low)} on every path."
    return (
        f"One request at a time: {best.name} answers in {_ms(low)} (median), "
        f"{high / low:.1f} times sooner than {worst.name} ({_ms(high)})."
    )


def _goodput(report: Report) -> str:
    rows = _ranked(report, lambda row: row.goodput.value or None if row.goodput else None)[::-1]
    if not rows:
        return ""
    within = f"99 % within {report.settings['target_ms']:g} ms"
    sentence = f"{rows[0][1].name} keeps up {rows[0][0]:,.0f} requests a second with {within}"
    if len(rows) > 1:
        sentence += f"; next is {rows[1][1].name} with {rows[1][0]:,.0f}"
    return sentence + "."


def _cheapest(report: Report) -> str:
    rows = _ranked(report, _cpu)
    if len(rows) < 2:
        return ""
    (low, best), (high, worst) = rows[0], rows[-1]
    return (
        f"{best.name} takes the least CPU: {low:,.0f} us a request; "
        f"{worst.name} takes {high / low:.1f} times as much."
    )


def million(row: Row, price_per_core_hour: float) -> float | None:
    """What a million requests cost, by the CPU time of one at the highest rate that was kept up."""
    cpu_us = row.cpu_at_goodput
    return None if cpu_us is None else cpu_us / 3600 * price_per_core_hour


def _money(report: Report) -> str:
    rows = _ranked(report, lambda row: row.million_cost)
    if not rows:
        return ""
    (low, best), (high, worst) = rows[0], rows[-1]
    return (
        f"At the highest rate that it keeps up, a million requests cost {low:.2g} with {best.name}, "
        f"{high:.2g} with {worst.name}."
    )


def _parts(report: Report) -> str:
    rows = [(row.p50.value, row) for row in report.working if row.parts and row.p50]
    if not rows:
        return ""
    total, row = min(rows, key=lambda pair: pair[0])
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in row.parts.items())
    return f"Where the {_ms(total)} of {row.name} go: {shares}."


def _precisions(report: Report) -> list[str]:
    """What each less precise form gains and costs, beside the same target and protocol as deployed."""
    found, told = [], set()
    deployed = {(row.target, row.protocol): row for row in report.working if not row.variant}
    for row in report.working:
        base = deployed.get((row.target, row.protocol))
        if base is None or row.precision == base.precision or (row.target, row.variant) in told:
            continue
        if row.p50 and base.p50 and row.score is not None and base.score is not None and base.artifact_bytes:
            told.add((row.target, row.variant))
            found.append(
                f"{row.target} {row.variant} has {row.artifact_bytes / base.artifact_bytes:.0%} of the size, "
                f"{row.p50.value / base.p50.value:.0%} of the median by {row.protocol}, and "
                f"{100 * (row.score - base.score):+.2f} points of {report.score}."
            )
    return found


def _smallest(report: Report) -> str:
    rows = _ranked(report, lambda row: row.artifact_bytes or None)
    if len(rows) < 2 or rows[-1][0] < CLEAR * rows[0][0]:
        return ""
    (low, best), (high, worst) = rows[0], rows[-1]
    return (
        f"The smallest artifact is {_artifact(best)}'s ({low / 2**20:.2f} MiB), "
        f"the largest {_artifact(worst)}'s ({high / 2**20:.2f} MiB)."
    )


def _parity(report: Report) -> str:
    rows = _ranked(report, lambda row: row.difference if row.precision == "float32" else None)
    if not rows:
        return ""
    scores = {row.score for _, row in rows if row.score is not None}
    same = ""
    if scores:
        low, high = min(scores), max(scores)
        span = f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
        same = f"; {report.score} through the endpoints is {span}"
    largest, worst = rows[-1]
    return f"{len(rows)} endpoints answer as their framework does, within {largest:.1g} ({worst.name}){same}."


def _frameworks(report: Report) -> str:
    names = {"tensorflow": "TensorFlow", "pytorch": "PyTorch"}
    ranked = _ranked(report, _cpu)
    best = [next(((cpu, row) for cpu, row in ranked if row.framework == name), None) for name in names]
    found = sorted((one for one in best if one is not None), key=lambda pair: pair[0])
    if len(found) < 2:
        return ""
    (low, winner), (high, loser) = found
    if high < CLEAR * low:
        return "The cheapest way from TensorFlow and the cheapest from PyTorch cost about the same CPU."
    return (
        f"The cheapest way from {names[winner.framework]} is {winner.name}, "
        f"from {names[loser.framework]} {loser.name}, which takes {high / low:.1f} times the CPU."
    )


def _training(report: Report) -> str:
    """Both frameworks side by side, where both have a record."""
    own = [one for one in report.frameworks if one.epochs]
    if len(own) < 2:
        return ""
    seconds = " and ".join(f"{one.seconds / len(one.epochs):.1f} s with {one.name}" for one in own)
    scores = " and ".join("unknown" if one.score is None else f"{one.score:.4f}" for one in own)
    lines = " and ".join(str(sum(one.lines.values())) for one in own)
    return f"An epoch took {seconds}; {report.score} is {scores}; their ways are {lines} lines of code."


def _broken(report: Report) -> list[str]:
    return [f"{row.name} {row.state}: {row.reason}" for row in report.rows if not row.works]


def _doubts(report: Report) -> list[str]:
    found = []
    for when, busy in (("before the start", report.busy_before), ("after the end", report.busy_after)):
        if busy > QUIET:
            found.append(
                f"The machine was busy {when} ({busy:.0%} of its processors' time was others'): "
                "compare ratios, not milliseconds."
            )
    sources = {row.framework for row in report.working if row.kind == ENDPOINT} - {"-"}
    if len(sources) > 1:
        found.append(
            "Rows have the weights of two frameworks, so their scores differ by training, too; "
            "`make deploy SOURCE=pytorch` puts the same behind all."
        )
    found += conditions.differences(report)
    doubtful = [
        row.name for row in report.working if row.p99 is not None and not row.p99.valid and not row.failures
    ]
    if doubtful:
        found.append(f"Too few requests for a sure 99th percentile: {', '.join(doubtful)}.")
    dear = [
        row.name
        for row in report.working
        if row.generator_us and row.cpu_us and row.generator_us > row.cpu_us.value / 5
    ]
    if dear:
        found.append(
            f"The generator takes more than a fifth of the server's CPU a request on {len(dear)} of "
            f"{len(report.working)} rows, so their highest rates are lower bounds on this machine."
        )
    servers = {row.server for row in report.rows if row.kind == NULL and row.works and row.p50}
    untold = [row.name for row in report.working if row.server in servers and row.p50 and not row.parts]
    if untold:
        found.append(f"Parts that were measured beside it took longer than the whole: {', '.join(untold)}.")
    if report.partial:
        found.append("The comparison was interrupted: figures are missing.")
    return found


def _ranked(report: Report, figure: Callable[[Row], float | None]) -> list[tuple[float, Row]]:
    """The rows that work and have the figure, the lowest first."""
    found = [(value, row) for row in report.working if (value := figure(row)) is not None]
    return sorted(found, key=lambda pair: pair[0])


def _cpu(row: Row) -> float | None:
    return row.cpu_us.value if row.cpu_us else None


def _artifact(row: Row) -> str:
    return f"{row.target} {row.variant}".strip()


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"
