"""A whole comparison of servers whose answers, latencies and faults are known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import comparison, parsing
from serving.compare import report
from serving.compare.changes import Change
from serving.compare.report import FAILED, Report
from serving.errors import TandemError
from serving.settings import Settings
from tests.serving.compare import reports
from tests.serving.compare.scripted import serving, sleeping


def gone(_number: int) -> float:
    raise RuntimeError("the model is gone")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.arange(136, dtype=np.float32).reshape(68, 2))
    return path


def compared(artifacts: Path, *words: str) -> tuple[Report, Path, list[Change]]:
    options = parsing.parser().parse_args(["compare", *words])
    return comparison.compare(replace(Settings(), artifacts=artifacts), options, lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_servers_are_compared_by_what_they_answer_and_take(tmp_path: Path, samples: Path) -> None:
    short = ["--samples", str(samples), "--seconds", "0.3", "--rounds", "1", "--target-ms", "200"]
    with serving(sleeping(3, 2.0)) as fast, serving(sleeping(30, 3.0)) as slow, serving(gone) as broken:
        urls = [word for url in (fast, slow, broken) for word in ("--endpoint", url)]
        made, folder, changes = compared(tmp_path, *short, *urls)
    left, right, failed = made.rows
    assert right.p50.value - left.p50.value == pytest.approx(27, abs=12)
    assert (failed.state, "the model is gone" in failed.reason) == (FAILED, True)
    # 2 x and 3 x of an x that goes up to 134.
    assert made.parity == [[0, 134, None], [134, 0, None], [None, None, None]]
    assert not made.partial
    assert changes == []
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.json", "rows.csv", "summary.md"}
    assert [row["state"] for row in json.loads((folder / "report.json").read_text())["rows"]][-1] == FAILED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "oip+http://h:1/m"], "--endpoint and --samples need each other"),
        (["tfjs", "--endpoint", "oip+http://h:1/m", "--samples", "x.npz"], "expected no target"),
        (
            ["--endpoint", "http://h:1/m", "--samples", "x.npz"],
            "is no address of an endpoint: expected one of oip",
        ),
        (["--rows", "0"], "--rows 0: expected more than 0"),
        (["--fail-on", "regression"], "--fail-on needs --against"),
        (["--against", "OTHER"], "is of the model other: expected one of fashion"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_started(
    tmp_path: Path, words: list[str], message: str
) -> None:
    other = report.save(reports.report(model="other"), tmp_path / "other")
    with pytest.raises(TandemError, match=message):
        compared(tmp_path / "artifacts", *(word.replace("OTHER", str(other)) for word in words))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as .npz"),
        (b"PK\3\4 cut off", "cannot be read as .npz"),
        ([1.0, 2.0], "cannot be read as .npz"),
        ({"x": [[1.0]], "y": []}, "expected as many rows of each input, and one at least: {'x': 1, 'y': 0}"),
        ({"x": 1.0}, "one at least: {'x': 0}"),
    ],
)
def test_samples_that_are_none_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "samples.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with path.open("wb") as file:
            np.savez(file, **content) if isinstance(content, dict) else np.save(file, content)
    with pytest.raises(TandemError, match=re.escape(message)):
        compared(tmp_path, "--samples", str(path), "--endpoint", "oip+http://127.0.0.1:1/m")
    assert list((tmp_path / "reports").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_measurement(
    tmp_path: Path, samples: Path
) -> None:
    (tmp_path / "reports").touch()
    with pytest.raises(OSError, match="reports"):
        compared(tmp_path, "--samples", str(samples), "--endpoint", "oip+http://127.0.0.1:1/m")


def test_answers_that_cannot_be_compared_have_no_difference() -> None:
    """Servers that Tandem did not start may call their outputs otherwise, or answer in other shapes."""
    rows = [reports.row(name, "rest", 1, 1) for name in ("a", "b", "c", "d")]
    one = np.ones((2, 3), np.float32)
    answers = dict(
        zip([row.name for row in rows], ({"y": one}, {"z": one}, {"y": one[0]}, {"y": one * 3}), strict=True)
    )
    found = comparison._parity(reports.report(*rows), answers)
    assert found[0] == [0.0, None, float("inf"), 2.0]


def test_the_terminal_shows_each_row_in_80_columns(tmp_path: Path) -> None:
    *lines, where = comparison.lines(reports.report(), tmp_path)
    assert where == f"report: {tmp_path / 'index.html'}"
    text = "\n".join(lines)
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert re.search(r"^torchserve +rest +6.10 +12.20 +90 +6,100 +0.9000 +6.1e-07$", text, re.MULTILINE)
