"""What a report says, in words, tables and plots, and how two of them differ."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from serving.compare import page, parts, report, words
from serving.compare.changes import changes
from serving.compare.report import FAILED, IN_PROCESS, NULL, UNREACHABLE, VARIANT, Figure, ReportError, Row

from . import reports
from .reports import row


def said(*rows: Row, **changes: Any) -> str:
    return " ".join(words.conclusions(reports.report(*rows, **changes)))


def test_the_words_say_what_the_figures_say() -> None:
    found = said()
    for part in (
        "onnxruntime grpc answers in 1.00 ms (median), 6.1 times sooner than torchserve rest (6.10 ms)",
        "onnxruntime grpc keeps up 1,000 requests a second with 99 % within 20 ms, 11.1 times as many as torchserve",
        "onnxruntime grpc takes the least CPU: 1,000 us a request; torchserve rest takes 6.1 times as much",
        "accuracy through the endpoints is 0.9000",
    ):
        assert part in found
    assert not re.search("busy|here:|~", found)
    turned = said(row("onnxruntime", "grpc", 8.0, 50), row("torchserve", "rest", 2.0, 900))
    assert "torchserve rest answers in 2.00 ms (median), 4.0 times sooner than onnxruntime grpc" in turned
    assert "torchserve rest keeps up 900" in turned


def test_rows_that_cannot_be_told_apart_are_named_and_none_is_put_first() -> None:
    """The latencies are 5 % apart, the CPU 20 % with spreads of 20 %; the third row is far from both."""
    near = [
        row(target, "rest", 1, 9, p50=Figure(ms, 0.08), cpu_us=Figure(cpu, 100), goodput=Figure(1000 / ms, 1))
        for target, ms, cpu in (("litert", 2.0, 1000), ("onnxruntime", 2.1, 1200))
    ]
    found = said(*near, row("torchserve", "rest", 8.0, 90))
    for part in (
        "litert rest and onnxruntime rest answer in 2.00 ms to 2.10 ms (median), 3.8 times sooner than torchserve",
        "These answer equally soon here: litert rest (2.00 ms) and onnxruntime rest (2.10 ms) are 5% apart, "
        "within the spread of ±8%.",
        "litert rest and onnxruntime rest take the least CPU: 1,000 us to 1,200 us a request; torchserve rest takes",
        "litert rest (1,000 us) and onnxruntime rest (1,200 us) are 20% apart, within the spread of ±20%.",
        "litert rest and onnxruntime rest keep up 476 to 500 requests a second",
        "(500) and onnxruntime rest (476) are 5% apart, within the 10% by which two runs",
        "The cheapest way from TensorFlow and the cheapest from PyTorch cost about the same CPU.",
    ):
        assert part in found
    assert not re.search("sooner than onnxruntime|is litert rest, from PyTorch", found)


@pytest.mark.parametrize("others", [[], [("torchserve", 2.25)]])
def test_where_rows_cannot_be_told_apart_no_sentence_ranks_them(others: list[tuple[str, float]]) -> None:
    """Nor where only the first and the last of three are apart."""
    rows = [("litert", 2.0), ("onnxruntime", 2.1), *others]
    found = said(*(row(target, "rest", ms, 90, p50=Figure(ms), cpu_us=Figure(ms)) for target, ms in rows))
    assert (
        "litert rest (2.00 ms) and onnxruntime rest (2.10 ms) are 5% apart, within the 10% by which" in found
    )
    assert not re.search("sooner|the least CPU|times as m|which takes", found)
    assert ("onnxruntime rest (2.10 ms) and torchserve rest (2.25 ms) are 7% apart" in found) == bool(others)


def test_a_target_is_held_against_others_by_its_best_protocol_and_alone_by_all_of_its_own() -> None:
    own = (("rest", 3.0), ("grpc", 2.0), ("rest-binary", 2.05))
    several = [row("litert", name, ms, 90) for name, ms in own]
    assert "litert grpc (2.00 ms) and litert rest-binary (2.05 ms)" in said(*several)
    found = said(*several, row("onnxruntime", "rest", 4.0, 90))
    assert "here:" not in found.replace("keep up equally many requests a second here:", "")
    ways = row("litert", "grpc", 2.0, 9), row("tf-serving", "rest", 9.0, 9), row("onnxruntime", "rest", 1, 9)
    cheapest = (
        "cheapest way from PyTorch is onnxruntime rest, from TensorFlow litert grpc, which takes 2.0 times"
    )
    assert cheapest in said(*ways)


def test_a_cpu_time_that_moves_between_rounds_is_marked() -> None:
    made = reports.report(
        row("litert", "rest", 1, 90, cpu_us=Figure(500, 60)), row("onnxruntime", "rest", 9, 9)
    )
    assert "CPU a request moved by more than ±10% between rounds (~): litert rest." in words.conclusions(made)
    assert "| 500 ±60 ~ |" in page.markdown(made)
    assert "<td>500 ±60 ~</td>" in page.html(made)
    assert "| 9,000 ±90 |" in page.markdown(made)


def test_trainings_are_told_side_by_side() -> None:
    both = [
        reports.framework("tensorflow"),
        reports.framework("pytorch", seconds=20.0, score=0.9, lines={"a": 7}),
    ]
    third = reports.framework("keras-on-pytorch", step_seconds=0.35, loss_difference=7e-4)
    made = reports.report(frameworks=[*both, third])
    assert (
        "An epoch took 30.5 s with tensorflow and 10.0 s with pytorch; accuracy is 0.9100 and 0.9000; "
        "their ways are 40 and 7 lines of code."
    ) in words.conclusions(made)
    assert "An epoch" not in said(frameworks=both[:1])
    html = page.html(made)
    assert re.search(r"<td>350.0</td><td>[^<]*</td>\s*<td>7.0e-04</td>", html)
    # In the legend of the curves.
    assert re.search(r"<text[^>]*>keras-on-pytorch</text>", html)


def test_money_is_cpu_time_at_the_highest_rate_that_was_kept_up_by_its_price() -> None:
    cheap, dear = reports.report().rows
    # 500 us a request are 500 s for a million, at 0.036 / 3600 a second.
    assert words.million(cheap, 0.036) == pytest.approx(0.005)
    assert words.million(row("litert", "rest", 1, 9, sweep=[]), 0.036) is None
    cheap.million_cost, dear.million_cost = 0.005, 0.03
    assert "keeps up, a million requests cost 0.005, with torchserve rest 0.03" in said(cheap, dear)


def test_a_less_precise_form_is_held_against_what_is_deployed() -> None:
    small = {"kind": VARIANT, "variant": "int8", "precision": "int8", "score": 0.897, "artifact_bytes": 2**18}
    base, told = (
        row("litert", "grpc", 2.0, 9),
        "litert int8 has 12% of the size, {} the median by grpc, and -0.30",
    )
    assert told.format("75% of") in said(base, row("litert", "grpc", 1.5, 9, **small))
    assert told.format("about") in said(base, row("litert", "grpc", 1.9, 9, **small))


def test_doubts_are_said() -> None:
    broken = row("tf-serving", "grpc", 1, 1, state=FAILED, reason="TargetError: it is gone")
    unsure = row("litert", "rest", 1.0, 90, p99=Figure(2.0, 0.1, "too few requests"), generator_us=900)
    unsure.failures = {"TimeoutError: late": 1, "ConnectionError: reset": 2}
    one, two = (
        row(name, "rest", 2, 9, conditions={"threads": n})
        for name, n in (("onnxruntime", 1), ("torchserve", 2))
    )
    found = said(broken, unsure, one, two, busy_after=0.35, partial=True)
    for part in (
        "tf-serving grpc failed: TargetError: it is gone",
        "litert rest: 3 requests failed, most by: ConnectionError: reset.",
        "busy after the end (35% of its processors' time was others')",
        "Figures that are not sure (*): litert rest",
        "generator takes more than a fifth",
        "the weights of two frameworks",
        "Not equal between rows: threads (1: onnxruntime; 2: torchserve)",
        "interrupted",
    ):
        assert part in found


def test_a_request_s_time_is_divided_by_what_was_measured_beside_it() -> None:
    """10 ms: 1 of the generator, 3 of the client (5 - 1 - 1), 1 of the server's CPU, 4 of the model, 1 is left."""
    ours = {"server": "our server"}
    way = row("litert", "grpc", 10.0, 90, **ours)
    empty = row("null", "grpc", 5.0, 1, kind=NULL, variant="oip", cpu_us=Figure(1000.0), **ours)
    alone = row("litert", "in process", 5.0, 1, kind=IN_PROCESS)
    nothing = row("null", "no endpoint", 1.0, 1, kind=NULL)
    other = row("torchserve", "grpc", 10.0, 90, server="TorchServe")
    made = reports.report(way, empty, alone, nothing, other)
    parts.divide(made)
    assert way.parts == {"generator": 1, "client and wire": 3, "server": 1, "model": 4, "both together": 1}
    assert other.parts == {}
    assert [found.name for found in made.working] == ["litert grpc", "torchserve grpc"]
    told = "Where the 10 ms of litert grpc go: generator 10%, client and wire 30%, server 10%, model 40%"
    assert told in " ".join(words.conclusions(made))
    assert "Where a request" in page.html(made)
    # Noise makes no negative part, and the parts are the whole.
    way.p50 = Figure(8.5)
    parts.divide(made)
    assert (way.parts["model"], way.parts["both together"]) == (3.5, 0)
    # A reading far shorter than what was measured beside it has none.
    way.p50 = Figure(4.0)
    parts.divide(made)
    assert way.parts == {}
    assert "took longer than the whole: litert grpc" in " ".join(words.conclusions(made))


def test_a_report_survives_its_file_and_another_is_refused(tmp_path: Path) -> None:
    made = reports.report(frameworks=[reports.framework("tensorflow")])
    file = report.save(made, tmp_path)
    assert report.load(file) == report.load(tmp_path) == made
    written = json.loads(file.read_text())
    for change, message in (
        ({"schema": 99}, "schema 99: expected 3"),
        ({"rows": None}, "not a whole report"),
        ({"new": 1}, "not a whole report"),
    ):
        file.write_text(json.dumps(written | change))
        with pytest.raises(ReportError, match=message):
            report.load(file)


def test_differences_beyond_both_spreads_are_named_with_their_direction() -> None:
    def changed(left: Row, right: Row) -> dict[str, bool]:
        return {change.figure: change.worse for change in changes(*map(reports.report, (left, right)))}

    plain, worse = row("onnxruntime", "grpc", 1.0, 1000), row("onnxruntime", "grpc", 1.5, 500, score=0.85)
    names = ("p50", "p99", "cpu_us", "goodput", "score")
    assert changed(plain, plain) == changed(plain, row("onnxruntime", "grpc", 1.015, 1000)) == {}
    assert changed(plain, worse) == dict.fromkeys(names, True)
    assert changed(worse, plain) == dict.fromkeys(names, False)
    # One that is not valid is not compared.
    assert changed(plain, dataclasses.replace(plain, p99=Figure(90.0, 0.0, "too few requests"))) == {}
    lines = map(str, changes(reports.report(plain), reports.report(worse)))
    assert "REGRESSION: onnxruntime grpc: goodput 1000 -> 500, 0.50 times" in lines


def test_a_row_that_is_gone_is_a_regression_only_if_its_target_was_asked_for() -> None:
    gone = row("torchserve", "-", 1, 1, state=UNREACHABLE, reason="does not answer")
    for rows, expected in (([], []), ([gone], ["REGRESSION: torchserve rest: state 1 -> 0, 0.00 times"])):
        new = reports.report(row("onnxruntime", "grpc", 1.0, 1000), *rows)
        assert [str(change) for change in changes(reports.report(), new)] == expected


def test_the_page_needs_nothing_from_anywhere_and_has_every_row_and_reason() -> None:
    broken = row("tf-serving", "grpc", 1, 1, state=FAILED, reason="<it> is gone")
    unsure = row("litert", "rest", 1.0, 90, p99=Figure(2.0, 0.1, "too few & late"))
    way = row("onnxruntime", "rest", 2, 9, conditions={"threads": 3}, memory_idle=77 * 2**20)
    both = [reports.framework("tensorflow"), reports.framework("pytorch", peak_bytes=0)]
    html = page.html(reports.report(broken, unsure, way, frameworks=both))
    assert len(html) < 2_000_000
    # XML's names of its own standards are no addresses that a browser asks.
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import|<script""", html)
    for text in ("&lt;it&gt; is gone", "too few &amp; late", "Latency under load", "Parity", "Training"):
        assert text in html
    assert html.count("<svg") >= 7
    cells = re.findall("<td>(.*?)</td>", html)
    for text in ("3", "77", "30.5", "300", "litert 9.0", "network 40", "float32 on 1 cpu", "27.1", "1.2%"):
        assert text in cells


def test_the_summary_has_a_line_a_target_with_its_soonest_protocol_then_one_a_row() -> None:
    made = reports.report()
    made.rows.append(dataclasses.replace(made.rows[0], protocol="slow", p50=Figure(99.0)))
    lines = [line for line in page.markdown(made).splitlines() if line.startswith("| ")]
    names = [tuple(line.split(" | ")[:2]) for line in lines]
    fast, slow, slower = ("| onnxruntime", "grpc"), ("| torchserve", "rest"), ("| onnxruntime", "slow")
    head = ("| target", "protocol")
    assert names == [head, fast, slow, head, fast, slow, slower]
    assert [line.split(" | ")[-1] for line in lines[:3]] == ["project |", "active |", "archived |"]


def test_the_rows_as_csv_have_plain_numbers() -> None:
    first, second = csv.DictReader(page.comma_separated(reports.report()).splitlines())
    assert (first["target"], first["p50"], first["memory_loaded"]) == ("onnxruntime", "1.0", str(120 * 2**20))
    assert (second["kind"], second["image_bytes"]) == ("endpoint", "")
