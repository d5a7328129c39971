"""The README's figures of the default profile: both frameworks train for minutes here, once."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from serving.settings import PREFIX
from tests.e2e.conftest import ROOT, TANDEM, take_over

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(3600)]


def test_the_trainings_of_the_default_profile_reach_their_figures(tmp_path: Path) -> None:
    take_over(tmp_path, "quick")
    own = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    own[f"{PREFIX}ARTIFACTS"] = str(tmp_path)
    done = subprocess.run([TANDEM, "publish"], cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (record,) = (tmp_path / "runs").glob("fashion-quick-*/gates.json")
    gates = json.loads(record.read_text())
    accuracies = [found["accuracy"] for found in gates["metrics"].values()]
    assert len(accuracies) == 2
    assert min(accuracies) >= 0.90
    assert max(accuracies) - min(accuracies) <= 0.005
    (losses,) = (check["figure"] for check in gates["checks"] if check["gate"] == "training parity")
    assert losses <= 1e-3
    float32 = [c for c in gates["checks"] if "float32" in c["name"] and "difference of logits" in c["name"]]
    assert len(float32) == 5
    assert all(check["figure"] <= 1e-5 for check in float32)
