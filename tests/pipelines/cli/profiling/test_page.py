from __future__ import annotations

import json
from pathlib import Path

from pipelines.cli.profiling import page
from pipelines.cli.profiling.record import Clock, Op, Profiled, dearest, write_trace
from tests.pipelines.records.test_page import addresses

STEP = Profiled(
    "tensorflow",
    "tensorflow 2.21.0",
    {"input": 0.037, "forward": 0.02, "backward": 0.04, "optimizer": 0.003},
    [
        Op("convolution.1 of a block with a name that is far longer than a terminal is wide", 0.03, 2),
        Op("add", 0.01, 40),
    ],
    "A note.",
)
RUN = Profiled(
    "onnxruntime", "onnxruntime 1.32.0, 1 thread", {"forward": 0.00432}, [Op("Conv <node>", 0.004, 1)]
)


def test_what_a_person_asks_first_is_one_sentence() -> None:
    assert STEP.sentence.startswith(
        "37 % of a TensorFlow step waits for input, 40 % is backward; the dearest op is conv"
    )
    assert STEP.sentence.endswith(", 75 % of all.")
    assert RUN.sentence == "An ONNX Runtime run takes 4.32 ms; the dearest op is Conv <node>, 100 % of all."


def test_the_terminal_shows_parts_and_ops_in_80_columns(tmp_path: Path) -> None:
    *lines, where = page.lines([STEP, RUN], tmp_path)
    assert where == f"page: {tmp_path / page.FILE}"
    text = "\n".join(lines)
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert "tensorflow   37     20       40        3          100\n" in text
    assert "onnxruntime  -      4.32     -         -          4.32\n" in text
    assert "75.0 %  30  2      convolution.1 of a block" in text
    assert f"{STEP.note}\n" in text
    for own in (STEP, RUN):
        assert own.sentence in text.replace("\n", " ")


def test_the_page_has_both_side_by_side_and_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    page.write([STEP, RUN], "fashion: 20 steps", tmp_path)
    html = (tmp_path / page.FILE).read_text()
    assert addresses(html) == []
    assert "Conv &lt;node&gt;" in html
    assert 'class="backward" style="width:40.0%" title="backward: 40 ms"' in html
    assert 'class="forward" style="width:4.32%"' in html


def test_calls_of_an_op_are_added_up_and_the_dearest_comes_first() -> None:
    calls = [("add", 1.0), ("conv", 2.0), ("add", 2.0), ("conv", 3.0)]
    assert dearest(calls, steps=2) == [Op("conv", 2.5, 1.0), Op("add", 1.5, 1.0)]


def test_a_clock_counts_what_waits_for_batches_as_input() -> None:
    clock = Clock()
    assert list(clock.waited([1, 2])) == [1, 2]
    assert clock.seconds.keys() == {"input"}


def test_a_trace_is_in_the_trace_event_format(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.json", [("ops", "conv", 5.0, 2.0)])
    name, event = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert name == {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "ops"}}
    assert event == {"ph": "X", "pid": 1, "tid": 1, "name": "conv", "ts": 5.0, "dur": 2.0}
