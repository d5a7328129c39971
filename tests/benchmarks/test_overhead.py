"""The limits of what our server adds to the model, against reports written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.compare import report
from serving.compare.report import IN_PROCESS, PEER, VARIANT, Figure, Row
from tests.benchmarks import overhead
from tests.serving.compare import reports

MODEL = 200
CPU = {
    "onnxruntime": {"rest": 800, "rest-binary": 700, "grpc": 1150},
    "triton": {"oip+http": 800, "oip-binary+http": 700, "oip+grpc": 800},
    "mlserver": {"oip+http": 900, "oip+grpc": 1400},
    "kserve": {"oip+http": 1300, "oip+grpc": 1200},
}


def written(folder: Path, **changes: Any) -> str:
    """A report of these servers; `changes` are of ours."""
    alone = Row("onnxruntime", "in process", "pytorch", "", kind=IN_PROCESS, cpu_us=Figure(MODEL))
    int8 = Row("onnxruntime", "grpc", "pytorch", "", kind=VARIANT, variant="int8", cpu_us=Figure(9))
    rows = [alone, int8]
    for name, own in CPU.items():
        for protocol, cpu in own.items():
            made = Row(name, protocol, "pytorch", "", server=name, cpu_us=Figure(cpu))
            if name == "onnxruntime":
                made.start_seconds, made.memory_loaded = 0.5, 100 * 2**20
                for field, value in changes.items():
                    setattr(made, field, value)
            else:
                made.target, made.kind = f"{protocol}://127.0.0.1:8000/m", PEER
            rows.append(made)
    return str(report.save(reports.report(*rows), folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # (800 - 200) / (800 - 200), and (1150 - 200) / (1400 - 200).
        (
            {},
            [
                "triton's    <= 1.2  1.00    reached",
                "gRPC, as a share of mlserver's  <= 1    0.79    reached",
            ],
        ),
        ({"cpu_us": Figure(1290)}, ["<= 1.2  1.82    MISSED", "<= 1    1.56    MISSED"]),
        ({"start_seconds": 1.6}, ["start, s                       <= 1.5  1.60    MISSED"]),
        ({"memory_loaded": 141 * 2**20}, ["<= 140  141.00  MISSED"]),
        ({"cpu_us": None}, ["-       not measured"]),
    ],
)
def test_a_limit_that_is_missed_or_was_not_measured_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: list[str]
) -> None:
    assert overhead.main([written(tmp_path, **change)]) == bool(change)
    said = capsys.readouterr().out
    for part in words:
        assert part in said


def test_a_report_without_peers_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert overhead.main([str(report.save(reports.report(), tmp_path))]) == 2
    assert "PEERS=1" in capsys.readouterr().out
