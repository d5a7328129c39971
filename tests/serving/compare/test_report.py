"""What a report says, in words, tables and plots, and how two of them differ."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from serving.compare import page, report, words
from serving.compare.changes import changes
from serving.compare.report import FAILED, Figure, ReportError

from . import reports
from .reports import row


def test_the_words_say_what_the_figures_say() -> None:
    said = " ".join(words.conclusions(reports.report()))
    assert (
        "onnxruntime grpc answers in 1.00 ms (median), 6.1 times sooner than torchserve rest (6.10 ms)"
        in said
    )
    assert (
        "onnxruntime grpc keeps up 1,000 requests a second with 99 % within 20 ms; next is torchserve rest"
        in said
    )
    assert (
        "onnxruntime grpc takes the least CPU: 1,000 us a request; torchserve rest takes 6.1 times as much"
        in said
    )
    assert "accuracy through the endpoints is 0.9000" in said
    assert "busy" not in said


def test_the_words_turn_with_the_figures() -> None:
    turned = reports.report(row("onnxruntime", "grpc", 8.0, 50), row("torchserve", "rest", 2.0, 900))
    said = " ".join(words.conclusions(turned))
    assert "torchserve rest answers in 2.00 ms (median), 4.0 times sooner than onnxruntime grpc" in said
    assert "torchserve rest keeps up 900" in said
    equal = reports.report(row("litert", "rest", 2.0, 90), row("onnxruntime", "rest", 2.1, 90))
    said = " ".join(words.conclusions(equal))
    assert "about 2.00 ms on every path" in said
    assert "cost about the same CPU" in said


def test_frameworks_are_held_against_each_other_by_their_cheapest_rows() -> None:
    both = reports.report(
        row("litert", "grpc", 2.0, 9), row("tf-serving", "rest", 9.0, 9), row("onnxruntime", "rest", 1, 9)
    )
    said = " ".join(words.conclusions(both))
    assert (
        "cheapest way from PyTorch is onnxruntime rest, from TensorFlow litert grpc, which takes 2.0 times"
        in said
    )


def test_money_is_cpu_time_by_its_price() -> None:
    priced = reports.report()
    priced.settings["price_per_core_hour"] = 0.036
    # 1,000 us a request are 1,000 s for a million, at 0.036 / 3600 a second.
    assert "A million requests cost 0.01 and 0.06" in " ".join(words.conclusions(priced))


def test_doubts_are_said() -> None:
    broken = row("tf-serving", "grpc", 1, 1, state=FAILED, reason="TargetError: it is gone")
    unsure = row("litert", "rest", 1.0, 90, p99=Figure(2.0, 0.1, "too few requests"), generator_us=900)
    doubtful = reports.report(broken, unsure, row("onnxruntime", "rest", 2, 9), load_before=3.5, partial=True)
    said = " ".join(words.conclusions(doubtful))
    for part in (
        "tf-serving grpc exported but failed: TargetError: it is gone",
        "busy before the start (load average 3.5 on 4 cores)",
        "Too few requests for a sure 99th percentile: litert rest",
        "generator takes more than a fifth",
        "interrupted",
    ):
        assert part in said


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    made = reports.report()
    assert report.load(report.save(made, tmp_path)) == made
    assert report.load(tmp_path) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99: expected 1"),
        ({"rows": None}, "not a whole report"),
        ({"new": 1}, "not a whole report"),
    ],
)
def test_another_report_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = report.save(reports.report(), tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ReportError, match=message):
        report.load(file)


def test_a_difference_within_the_spreads_is_none() -> None:
    old = reports.report()
    assert changes(old, reports.report()) == []
    slower = reports.report(row("onnxruntime", "grpc", 1.015, 1000), row("torchserve", "rest", 6.1, 90))
    assert changes(old, slower) == []


def test_differences_beyond_both_spreads_are_named_with_their_direction() -> None:
    worse = row("onnxruntime", "grpc", 1.5, 500, score=0.85)
    found = {change.figure: change for change in changes(reports.report(), reports.report(worse))}
    assert {name for name, change in found.items() if change.worse} == {
        "p50",
        "p99",
        "cpu_us",
        "goodput",
        "score",
        "state",
    }
    assert "REGRESSION: onnxruntime grpc: goodput 1000 -> 500, 0.50 times" in map(str, found.values())
    assert found["state"].row == "torchserve rest"
    better = changes(reports.report(worse), reports.report(row("onnxruntime", "grpc", 1.0, 1000)))
    assert better
    assert not any(change.worse for change in better)


def test_a_reading_that_is_not_valid_is_no_regression() -> None:
    doubtful = row("onnxruntime", "grpc", 1.0, 1000, p99=Figure(90.0, 0.0, "too few requests"))
    assert [
        c.figure for c in changes(reports.report(), reports.report(doubtful)) if c.row == doubtful.name
    ] == []


def test_the_page_needs_nothing_from_anywhere_and_has_every_row_and_reason() -> None:
    broken = row("tf-serving", "grpc", 1, 1, state=FAILED, reason="<it> is gone")
    unsure = row("litert", "rest", 1.0, 90, p99=Figure(2.0, 0.1, "too few & late"))
    html = page.html(reports.report(broken, unsure, row("onnxruntime", "rest", 2, 9)))
    assert len(html) < 2_000_000
    # XML's names of its own standards are no addresses that a browser asks.
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import|<script""", html)
    for text in ("&lt;it&gt; is gone", "too few &amp; late", "Latency under load", "Parity"):
        assert text in html
    assert html.count("<svg") >= 6


def test_the_summary_for_a_pull_request_has_a_line_a_row() -> None:
    text = page.markdown(reports.report())
    assert "| onnxruntime | grpc |" in text
    assert "| torchserve | rest |" in text
    assert len(page.comma_separated(reports.report()).splitlines()) == 3
