"""A whole comparison of servers whose answers, latencies and faults are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import comparison, parsing
from serving.compare.changes import Change
from serving.compare.report import FAILED, Report
from serving.settings import Settings
from serving.targets.base import TargetError
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
        (["--rows", "8"], "--rows 8: expected at least 64"),
        (["--peers", "/nowhere"], "/nowhere/peers.toml describes no servers"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_started(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        compared(tmp_path, *words)
    assert not list(tmp_path.iterdir())
